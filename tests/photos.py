"""Real photographs for the tests, out of packages that ship them."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

# skimage's data folder also holds drawings, scans, textures and microscopy; these are photographs.
_SCIKIT_IMAGE = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)
_SOURCES = {"scikit-image": _SCIKIT_IMAGE, "foolbox": ("imagenet_",)}


def _installed() -> dict[str, Path]:
    """Path by file name, in a stable order."""
    found: dict[str, Path] = {}
    for package, wanted in _SOURCES.items():
        try:
            entries = files(package) or []
        except PackageNotFoundError:
            raise RuntimeError(
                f"The photographs of {package} are not installed: run `make setup`."
            ) from None
        for entry in sorted(entries, key=str):
            if entry.suffix in {".png", ".jpg"} and entry.name.startswith(wanted):
                found[entry.name] = Path(str(entry.locate()))
    return found


def photo_names() -> list[str]:
    """Names of all photographs, at least 24, always in the same order."""
    return list(_installed())


def photo(name: str) -> bytes:
    """The file of one photograph, or any other picture of those packages.

    Raises:
        RuntimeError: the packages are not installed.
        KeyError: none of them has such a photograph.
    """
    return _installed()[name].read_bytes()
