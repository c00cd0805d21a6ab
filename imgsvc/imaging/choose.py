"""Choose: which formats a recipe allows, when to encode again, and which result is the best."""

from __future__ import annotations

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging.colour import eight_bit
from imgsvc.imaging.encode import Encoded, Encoding, encode_picture
from imgsvc.imaging.picture import Picture
from imgsvc.imaging.quality import DEFAULT_QUALITY, jpeg_quality
from imgsvc.imaging.stripped import Stripped, stripped_original

# Encoding lossily what was lossy already costs quality: it must save one byte in twenty.
_WORTHWHILE_RATIO = 0.95
# In pixels. The first three are limits of their libraries, the others of their formats.
_LONGEST_SIDE = {
    "jpeg": 65_500,
    "webp": 16_383,
    "avif": 32_768,
    "gif": 0xFFFF,
    "png": 0x7FFF_FFFF,
    "tiff": 0xFFFF_FFFF,
}
_GRAPHIC_COLOURS, _GRAPHIC_GREYS = 256, 64  # a picture with more is a photograph


def best(original: bytes, picture: Picture, recipe: Recipe) -> Encoded:
    """The smallest file that the recipe allows.

    Args:
        original: the whole file.
        picture: what was decoded from it.
        recipe: the wanted format and quality.

    Raises:
        ServiceError: TOO_MANY_PIXELS if the wanted format does not hold so long a side.
    """
    stripped = stripped_original(original, picture)
    made = [
        _candidate(encoding, original, picture, stripped)
        for encoding in _encodings(picture, recipe)
    ]
    smallest = min(made, key=lambda encoded: len(encoded.data))
    may_keep = recipe.format == "auto" and picture.kind != "tiff"
    if may_keep and stripped and stripped.size < len(smallest.data):
        return stripped.result(original, picture)
    return smallest


def _candidate(
    encoding: Encoding, original: bytes, picture: Picture, stripped: Stripped | None
) -> Encoded:
    """The picture in one encoding, or the stripped original where encoding again gains nothing."""
    if stripped is None or encoding.format != picture.kind:
        return encode_picture(encoding, original, picture)
    if _encoding_harms(picture, encoding):
        return stripped.result(original, picture)
    made = encode_picture(encoding, original, picture)
    ratio = 1.0 if encoding.lossless else _WORTHWHILE_RATIO
    return made if len(made.data) < ratio * stripped.size else stripped.result(original, picture)


def _encoding_harms(picture: Picture, encoding: Encoding) -> bool:
    """Whether encoding again could only do harm; see `codec`, and ``pinned`` of `Survey`."""
    return (
        picture.survey.pinned
        or picture.kind == "gif"
        or (picture.kind == "png" and picture.animated)
        or (picture.kind == "jpeg" and jpeg_quality(picture.jpeg_tables) <= encoding.quality)
    )


def _encodings(picture: Picture, recipe: Recipe) -> list[Encoding]:
    """The encodings to try.

    Raises:
        ServiceError: TOO_MANY_PIXELS if the wanted format does not hold so long a side.
    """
    if recipe.format == "auto":
        names = [name for name in _sensible(picture) if _fits(picture, name)]
    else:
        names = [_kept_format(picture) if recipe.format == "keep" else recipe.format]
        if not _fits(picture, names[0]):
            raise ServiceError(
                ErrorCode.TOO_MANY_PIXELS,
                f"{names[0]} holds at most {_LONGEST_SIDE[names[0]]:,} pixels a side.",
            )
    return [_encoding(name, picture, recipe.quality) for name in names]


def _encoding(name: str, picture: Picture, quality: int | None) -> Encoding:
    stays = name == picture.kind or (name == "webp" and quality is None and _graphic(picture))
    lossless = name in {"png", "tiff", "gif"} or (
        name == "webp" and stays and picture.survey.lossless
    )
    return Encoding(name, lossless, quality or DEFAULT_QUALITY.get(name, 100))


def _kept_format(picture: Picture) -> str:
    return "png" if picture.kind == "bmp" else picture.kind


def _fits(picture: Picture, name: str) -> bool:
    return max(picture.frames[0].size) <= _LONGEST_SIDE[name]


def _sensible(picture: Picture) -> list[str]:
    """The formats that ``auto`` tries.

    Encoding AVIF costs ten times the CPU, so only a source that is AVIF already gets it.
    """
    if picture.kind == "avif":
        return ["avif"]
    if picture.animated:
        return ["webp"] if picture.kind == "webp" else ["webp", picture.kind]
    if picture.survey.lossless and (picture.transparent or _graphic(picture)):
        return ["png", "webp"]
    return ["webp"] if picture.transparent else ["jpeg", "webp"]


def _graphic(picture: Picture) -> bool:
    """Whether this is a still picture with so few colours that lossy encoding would blur them."""
    first = eight_bit(picture.frames[0])
    most = _GRAPHIC_GREYS if first.mode in {"L", "LA"} else _GRAPHIC_COLOURS
    few = first.mode in {"1", "P"} or first.getcolors(most) is not None
    return few and picture.survey.lossless and not picture.animated
