"""What the demo posts: real photographs out of packages that ship them, and pictures made of them.

The made ones are what phones, print shops and browsers really produce: sideways, CMYK, 16 bits,
transparent, animated, large, in the colours of another screen. Two more are no pictures at all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageCms, ImageOps

from imgsvc.domain.errors import ErrorCode

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
_PHOTOGRAPHS = {"scikit-image": _SCIKIT_IMAGE, "foolbox": ("imagenet_",)}
_EASILY_HARMED = (
    "chelsea.png",
    "imagenet_10_541.jpg",
    "imagenet_12_741.jpg",
    "moon.png",
    "imagenet_04_949.jpg",
)
_SCREEN_PROFILE_OF = "color.png"  # made on a laptop; carries the profile of its screen

_PER_PRODUCT = 8
_TILE, _COLUMNS, _ROWS = 512, 10, 6  # of the large picture: 5120 x 3072 pixels
_FRAMES, _FRAME_MS = 6, 400


class PhotographsMissingError(RuntimeError):
    """The packages with the photographs are not installed; the message holds the remedy."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One file that the origin serves.

    Args:
        name: its path there.
        data: its bytes; None if the origin does not have it.
        note: what makes it difficult, for whoever looks at the results.
        error: what the service has to say about it; None if it is a good picture.
    """

    name: str
    data: bytes | None
    note: str = ""
    error: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Product:
    """One product to post."""

    serial_number: int | str
    name: str
    samples: tuple[Sample, ...]


def photo_names() -> list[str]:
    """Names of all photographs, at least 24, always in the same order.

    Raises:
        PhotographsMissingError: the packages are not installed.
    """
    return [
        name
        for package, wanted in _PHOTOGRAPHS.items()
        for name in _pictures_of(package)
        if name.startswith(wanted)
    ]


def photo(name: str) -> bytes:
    """The file of one photograph, or any other picture of those packages.

    Raises:
        PhotographsMissingError: the packages are not installed.
        KeyError: none of them has such a picture.
    """
    installed = {n: path for package in _PHOTOGRAPHS for n, path in _pictures_of(package).items()}
    return installed[name].read_bytes()


def catalogue() -> list[Product]:
    """Everything that the demo posts; takes about a second of CPU.

    Raises:
        PhotographsMissingError: the packages are not installed.
    """
    *photographs, last = [Sample(name, photo(name)) for name in photo_names()]
    shelves = [
        photographs[at : at + _PER_PRODUCT] for at in range(0, len(photographs), _PER_PRODUCT)
    ]
    plain = [
        Product(number, f"Photographs, shelf {number}", tuple(shelf))
        for number, shelf in enumerate(shelves, start=1)
    ]
    made = Product("SKU-MADE", "Pictures that are easily harmed", tuple(_made()))
    text = b"This is a text, whatever its name says.\n"
    # A name that a spreadsheet would run, and failures around a good one.
    odd = Product(
        "SKU-ODD",
        "=1+1",
        (
            Sample("missing.jpg", None, "nothing there", ErrorCode.FETCH_STATUS),
            Sample("front,512x512.jpg", last.data, "a comma in its URL"),
            Sample("text.jpg", text, "not a picture", ErrorCode.NOT_AN_IMAGE),
        ),
    )
    return [*plain, made, odd]


@functools.cache
def _pictures_of(package: str) -> dict[str, Path]:
    """Path by file name of every picture in a package, in a stable order."""
    try:
        installed = files(package) or []
    except PackageNotFoundError:
        raise PhotographsMissingError(
            f"The photographs of {package} are not installed: run `make setup`."
        ) from None
    return {
        entry.name: Path(str(entry.locate()))
        for entry in sorted(installed, key=str)
        if entry.suffix in {".png", ".jpg"}
    }


def _made() -> Iterator[Sample]:
    cat, drum, window, moon, berries = map(_opened, _EASILY_HARMED)
    yield Sample("large.jpg", _wall(), "15 megapixels")
    yield Sample("transparent.png", _vignette(cat), "fades out to nothing")
    yield Sample("sideways.jpg", _phone_photo(drum), "stored on its side, with GPS")
    yield Sample("cmyk.jpg", _printable(window), "inks, not light")
    yield Sample("animated.gif", _animation(), "moves")
    yield Sample("16-bit.png", _sixteen_bits(moon), "more greys than 256")
    yield Sample("profile.jpg", _in_colours_of_a_screen(berries), "a laptop's colours")


def _opened(name: str) -> Image.Image:
    image = Image.open(BytesIO(photo(name)))
    image.load()
    image.info = {}
    return image


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _exif(orientation: int = 1) -> Image.Exif:
    """What a phone writes beside the pixels, the place where the owner stood included."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Demo", "Phone 1"  # maker and model
    exif[0x0112] = orientation
    exif[0x0132] = "2026:01:31 12:00:00"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    return exif


def _wall() -> bytes:
    """All photographs side by side, as often as it takes for 15 megapixels."""
    names = photo_names()
    tiles = [ImageOps.fit(_opened(name).convert("RGB"), (_TILE, _TILE)) for name in names]
    wall = Image.new("RGB", (_COLUMNS * _TILE, _ROWS * _TILE))
    for place in range(_COLUMNS * _ROWS):
        row, column = divmod(place, _COLUMNS)
        wall.paste(tiles[place * 7 % len(tiles)], (column * _TILE, row * _TILE))
    return _saved(wall, "JPEG", quality=92, exif=_exif())


def _vignette(image: Image.Image) -> bytes:
    """The image fading out to nothing towards its edges."""
    fade = ImageOps.invert(Image.radial_gradient("L")).resize(image.size)
    image.putalpha(fade.point([min(255, value * 2) for value in range(256)]))
    return _saved(image, "PNG")


def _phone_photo(image: Image.Image) -> bytes:
    """As a phone held upright stores it: pixels on their side, and a note to turn them."""
    turned = image.transpose(Image.Transpose.ROTATE_90)
    return _saved(turned, "JPEG", quality=95, exif=_exif(orientation=6))


def _animation() -> bytes:
    names = photo_names()[-_FRAMES:]
    first, *rest = (
        ImageOps.fit(_opened(name).convert("RGB"), (240, 240)).quantize(128) for name in names
    )
    return _saved(first, "GIF", save_all=True, append_images=rest, duration=_FRAME_MS, loop=0)


def _printable(image: Image.Image) -> bytes:
    return _saved(image.convert("CMYK"), "JPEG", quality=92)


def _sixteen_bits(image: Image.Image) -> bytes:
    """Grey with more shades than eight bits hold: those between the neighbours, when enlarged."""
    deep = image.convert("I").point(lambda value: value * 257)
    enlarged = deep.resize((640, 640), Image.Resampling.BILINEAR)
    return _saved(enlarged.convert("I;16"), "PNG")


def _in_colours_of_a_screen(image: Image.Image) -> bytes:
    """The same colours in other numbers, and the profile that explains them."""
    with Image.open(BytesIO(photo(_SCREEN_PROFILE_OF))) as owner:
        profile: bytes = owner.info["icc_profile"]
    screen = ImageCms.ImageCmsProfile(BytesIO(profile))
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), screen)
    assert converted is not None  # noqa: S101 - it is None only when converting in place
    return _saved(converted, "JPEG", quality=95, icc_profile=profile)
