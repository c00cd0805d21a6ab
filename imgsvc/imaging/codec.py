"""Image bytes in, smaller image bytes out, and no harm done: the only user of Pillow.

The way of a picture: identify by magic bytes, survey the container, open one decoder, admit by
size, decode, turn upright, bring colours to sRGB, encode the candidates, keep the best. Where
encoding again gains nothing, the original pixels' bytes are kept without their metadata.

What each format becomes under the recipe ``keep``:

- JPEG stays JPEG, at quality 75 or below; what was saved at that quality or less is only stripped.
- PNG stays PNG and lossless; APNG and GIF are lossless already and are only stripped.
- WebP stays WebP, lossless or lossy (75) as it came; AVIF stays AVIF (60, near WebP 75 to the eye).
- TIFF stays TIFF with all its pages, under deflate (bilevel pages under CCITT group 4).
- BMP becomes PNG: no shop shows a BMP.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, product
from typing import Any

from PIL import (
    AvifImagePlugin,
    Image,
    ImageChops,
    ImageCms,
    ImageMath,
    JpegImagePlugin,
)
from PIL.ImageFile import ImageFile

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging import containers, magic

DEFAULT_QUALITY = {"jpeg": 75, "webp": 75, "avif": 60}
WORTH_A_GENERATION = 0.95  # lossy over lossy costs quality: it must save one byte in twenty
# Pixels: the first three by their libraries, the others by their formats.
LONGEST_SIDE = {
    "jpeg": 65_500,
    "webp": 16_383,
    "avif": 32_768,
    "gif": 0xFFFF,
    "png": 0x7FFF_FFFF,
    "tiff": 0xFFFF_FFFF,
}
GRAPHIC_COLOURS, GRAPHIC_GREYS = 256, 64  # more distinct ones than this make a photograph


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost.

    Args:
        max_pixels: width times height of one frame.
        max_frames: frames of an animation, pages of a TIFF.
        max_total_pixels: width times height times frames; decoding holds 4 bytes for each.
        max_jpeg_scans: passes of a progressive JPEG (a camera makes about 10).
        memory_bytes: what decoding and encoding may take by estimate; None for no bound.
    """

    max_pixels: int = 50_000_000
    max_frames: int = 200
    max_total_pixels: int = 200_000_000
    max_jpeg_scans: int = 100
    memory_bytes: int | None = None


class NeedsMemoryError(Exception):
    """An image that would take more memory than it was given; nothing was decoded."""

    def __init__(self, needed_bytes: int) -> None:
        self.needed_bytes = needed_bytes
        super().__init__(f"needs {needed_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Encoded:
    """The result.

    Args:
        data: the file.
        format: a key of ``model.FILE_TYPES``.
        width: pixels of the first frame, upright.
        height: likewise.
        frames: frames or pages in ``data``.
        note: ``encoded``; ``stripped``, the original pixels' bytes without metadata;
            ``original``, there was nothing to strip; ``larger``, correctness or an explicit
            format asked for more bytes than came in.
    """

    data: bytes
    format: str
    width: int
    height: int
    frames: int
    note: str


@dataclass(frozen=True, slots=True)
class _Picture:
    """What was decoded: frames upright, in sRGB, with no metadata left on them."""

    kind: str
    survey: containers.Survey
    frames: list[Image.Image]
    durations_ms: list[int]
    plays: int  # of the animation; 0 is for ever
    changed: bool  # the original's pixels are not these: it was turned or of other colours
    jpeg_tables: dict[int, list[int]]  # quantisation; empty unless it was a JPEG
    jpeg_sampling: int  # Pillow's number: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0

    @property
    def animated(self) -> bool:
        """Whether frames follow each other in time; the pages of a TIFF do not."""
        return len(self.frames) > 1 and self.kind != "tiff"

    @property
    def transparent(self) -> bool:
        """Whether anything shines through: an alpha channel alone may be opaque everywhere."""
        return any(
            frame.has_transparency_data
            and _eight_bit(frame).convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]  # noqa: PLR2004
            for frame in self.frames
        )


@dataclass(frozen=True, slots=True)
class _Variant:
    """One way to encode a picture."""

    format: str
    lossless: bool
    quality: int


def prepare_process() -> None:
    """Tune Pillow for a worker process that does one image at a time; call it once.

    Keeping freed 16 MB blocks instead of returning them saves 40 % of the CPU (page faults).
    """
    Image.core.set_blocks_max(16)  # type: ignore[attr-defined]
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the pool has a process per core


def release_memory() -> None:
    """Give back what a very large picture leaves behind; call it after each image.

    A photograph of 12 megapixels leaves 9 blocks: they stay for the next one.
    """
    if Image.core.get_stats()["blocks_cached"] > 9:  # type: ignore[attr-defined]  # noqa: PLR2004
        Image.core.clear_cache()  # type: ignore[attr-defined]


def encode(data: bytes, recipe: Recipe, limits: Limits) -> Encoded:
    """An image made smaller without harm: see the module for what that means by format.

    Args:
        data: the whole file as it was fetched; its name and media type are of no interest.
        recipe: the wanted format and quality.
        limits: what the image may cost.

    Raises:
        ServiceError: NOT_AN_IMAGE, UNSUPPORTED_FORMAT, IMAGE_CORRUPT, TOO_MANY_PIXELS (also
            when memory ran out), TOO_MANY_FRAMES, or INTERNAL with the cause chained.
        NeedsMemoryError: ``limits.memory_bytes`` is too little; call again with more.
    """
    kind = _identify(data)
    with _reading(limits):
        survey = containers.survey(kind, data)
        _admit_survey(survey, limits)
        picture = _decode(kind, containers.body(kind, data), survey, limits)
    with _writing():
        return _best(data, picture, recipe)


# --- Refusing ---------------------------------------------------------------------------------


def _identify(data: bytes) -> str:
    if kind := magic.sniff(data):
        return kind
    if name := magic.refused(data):
        raise ServiceError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{name} is not accepted; send JPEG, PNG, GIF, WebP, TIFF, BMP or AVIF.",
        )
    raise ServiceError(ErrorCode.NOT_AN_IMAGE)


def _admit_survey(survey: containers.Survey, limits: Limits) -> None:
    if survey.frames > limits.max_frames:
        raise _too_many_frames(limits)
    if survey.scans > limits.max_jpeg_scans:
        raise ServiceError(
            ErrorCode.TOO_MANY_PIXELS,
            f"The JPEG repeats its picture in more than {limits.max_jpeg_scans} scans.",
        )


def _admit_size(size: tuple[int, int], frames: int, limits: Limits) -> None:
    """Refuse a size before anything is allocated for it."""
    pixels = size[0] * size[1]
    if pixels > limits.max_pixels:
        raise _too_many_pixels(limits)
    if pixels * frames > limits.max_total_pixels:
        raise ServiceError(
            ErrorCode.TOO_MANY_PIXELS,
            f"All frames together have more than {limits.max_total_pixels:,} pixels.",
        )


# Peak memory of a whole process for noise, in bytes per pixel, as measured with Pillow 13.
_PEAK = {"jpeg": 9, "png": 8, "gif": 8, "bmp": 8, "tiff": 8, "webp": 44, "avif": 30}
_FRAME = 4  # a further frame that is kept decoded


def _admit_memory(kind: str, size: tuple[int, int], frames: int, limits: Limits) -> None:
    """Refuse for now what would take more memory than was given."""
    needed = size[0] * size[1] * (_PEAK[kind] + _FRAME * (frames - 1))
    if limits.memory_bytes is not None and needed > limits.memory_bytes:
        raise NeedsMemoryError(needed)


def _too_many_pixels(limits: Limits) -> ServiceError:
    return ServiceError(
        ErrorCode.TOO_MANY_PIXELS, f"The image has more than {limits.max_pixels:,} pixels."
    )


def _too_many_frames(limits: Limits) -> ServiceError:
    return ServiceError(
        ErrorCode.TOO_MANY_FRAMES, f"The image has more than {limits.max_frames:,} frames."
    )


def _out_of_memory() -> ServiceError:
    return ServiceError(
        ErrorCode.TOO_MANY_PIXELS, "The image needs more memory than a worker may use."
    )


@contextmanager
def _reading(limits: Limits) -> Iterator[None]:
    """Whatever goes wrong while reading becomes one sentence; hostile files raise anything."""
    stock, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limits.max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Damage beside the pixels is no reason to refuse them.
            warnings.filterwarnings("ignore", "Image appears to be a malformed MPO")
            warnings.filterwarnings("ignore", "(Possibly c|C)orrupt EXIF data")
            warnings.filterwarnings("ignore", "Palette images with Transparency")
            yield
    except (ServiceError, NeedsMemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(limits) from None
    except MemoryError:
        raise _out_of_memory() from None
    except Exception:  # noqa: BLE001
        raise ServiceError(ErrorCode.IMAGE_CORRUPT) from None
    finally:
        Image.MAX_IMAGE_PIXELS = stock


@contextmanager
def _writing() -> Iterator[None]:
    """Memory can run out here too; anything else that fails is our own fault, for the log."""
    try:
        yield
    except ServiceError:
        raise
    except Exception as error:
        # libwebp's code 1 is VP8_ENC_ERROR_OUT_OF_MEMORY (webp/encode.h).
        if isinstance(error, MemoryError) or "encoding error 1" in str(error):
            raise _out_of_memory() from None
        raise ServiceError(ErrorCode.INTERNAL) from error


# --- Decoding ---------------------------------------------------------------------------------

_ORIENTATION = 0x0112  # EXIF 2.32 §4.6.4 A
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Decoders whose object holds the picture and nothing else worth fearing, once `info` is emptied.
_REUSABLE = frozenset({"JPEG", "PNG", "WEBP", "BMP"})


def _decode(kind: str, data: bytes, survey: containers.Survey, limits: Limits) -> _Picture:
    """Every frame, in full: `verify()` overlooks what `load()` does not."""
    image = Image.open(BytesIO(data), formats=[kind.upper()])
    if kind == "jpeg":  # all in one piece: the decoder would take up the thread for each 64 kB
        image.decodermaxblock = len(data)
    _admit_size(image.size, survey.frames, limits)
    _admit_memory(kind, image.size, survey.frames, limits)
    frames, durations_ms, changed = [], [], False
    for frame in _frames(image, kind, survey, limits):
        orientation = _orientation(frame, kind)
        frame.load()
        durations_ms.append(_duration_ms(frame, kind))
        own = frame if survey.frames == 1 and frame.format in _REUSABLE else frame.copy()
        # Pillow turns TIFF pages by itself when it loads them.
        upright = _upright(own, 1 if kind == "tiff" else orientation)
        coloured, recoloured = _in_srgb(_in_plain_mode(upright))
        frames.append(_without_info(coloured))
        # Pinned pixels keep the profile that explains them.
        changed = changed or orientation != 1 or (recoloured and not survey.pinned)
    return _Picture(
        kind=kind,
        survey=survey,
        frames=frames,
        durations_ms=durations_ms,
        plays=_plays(image, kind),
        changed=changed,
        jpeg_tables=getattr(image, "quantization", None) or {},
        jpeg_sampling=_jpeg_sampling(image),
    )


def _frames(
    image: ImageFile, kind: str, survey: containers.Survey, limits: Limits
) -> Iterator[ImageFile]:
    """The image at each of its frames, not yet loaded; `n_frames` would walk a whole bomb."""
    if kind in {"jpeg", "bmp"}:  # of an MPO the first picture is the photograph
        yield image
        return
    if kind in {"tiff", "avif"} and _has_frame(image, limits.max_frames):
        raise _too_many_frames(limits)
    index = first = int(getattr(image, "default_image", False))  # APNG: shown by old viewers only
    while _has_frame(image, index):
        _admit_size(image.size, index - first + 1, limits)
        yield image
        index += 1
    if index - first < survey.frames:
        raise ServiceError(ErrorCode.IMAGE_CORRUPT, "The animation ends before its last frame.")


def _has_frame(image: ImageFile, index: int) -> bool:
    try:
        image.seek(index)
    except EOFError:
        return False
    return True


def _orientation(image: ImageFile, kind: str) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        if kind == "tiff":
            found = image.tag_v2.get(_ORIENTATION)  # type: ignore[attr-defined]
        else:  # EXIF alone, as browsers do: Pillow's `getexif` would believe XMP too
            exif = Image.Exif()
            exif.load(image.info.get("exif") or b"")
            found = exif.get(_ORIENTATION)
    except Exception:  # noqa: BLE001
        return 1  # damaged metadata is about to be removed anyway
    return int(found) if found in _UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _duration_ms(image: ImageFile, kind: str) -> int:
    """How long a frame is shown. Browsers show a GIF's 0 and 10 ms as 100 ms, and so do we."""
    duration_ms = round(image.info.get("duration", 0))
    return 100 if kind == "gif" and duration_ms <= 10 else duration_ms  # noqa: PLR2004


def _plays(image: ImageFile, kind: str) -> int:
    """How often an animation runs, 0 for ever. A GIF counts repeats, and runs once if silent."""
    loop = image.info.get("loop")
    if kind == "gif":
        return 1 if loop is None else loop and loop + 1
    return loop or 0


def _without_info(image: Image.Image) -> Image.Image:
    """The image without the entries that Pillow's encoders would write into the output."""
    transparency = image.info.get("transparency")
    image.info = {} if transparency is None else {"transparency": transparency}
    return image


def _jpeg_sampling(image: ImageFile) -> int:
    """The source's chroma sampling; 4:4:4 for those that Pillow cannot write, 4:2:0 unless JPEG."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.layers != 3:  # noqa: PLR2004
        return 2
    return max(0, JpegImagePlugin.get_sampling(image))


# --- Colour -----------------------------------------------------------------------------------

_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"})
_SRGB_TOLERANCE = 2  # of 255: how far profiles differ that all mean sRGB


def _in_plain_mode(image: Image.Image) -> Image.Image:
    """The same pixels in a mode that the later steps know."""
    if image.mode in _PLAIN_MODES:
        return image
    if image.mode.startswith("I"):
        low, high = image.convert("I").getextrema()
        if low >= 0 and high <= 0xFFFF:  # type: ignore[operator]  # noqa: PLR2004
            return image.convert("I").convert("I;16")
    if image.mode in {"I", "F", "LAB"}:
        # Without a black and a white that are agreed upon, any scaling would be a guess.
        raise ServiceError(
            ErrorCode.UNSUPPORTED_FORMAT,
            "Pixels must be whole numbers of at most 16 bits in grey, RGB or CMYK.",
        )
    return image.convert("RGBA" if image.mode in {"PA", "La", "RGBa"} else "RGB")


def _in_srgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image in sRGB (grey stays grey), and whether its pixels had to change for that."""
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK":
        converted = _converted(image, profile) if profile else None
        return converted or image.convert("RGB"), True
    if not profile or image.mode in {"1", "I;16"}:
        return image, False
    if image.mode == "P":
        converted = _palette_converted(image, profile)
    elif image.mode == "LA":
        converted = _converted(image.getchannel("L"), profile)
        if converted:
            converted = Image.merge("LA", (converted, image.getchannel("A")))
    else:
        # A colour named transparent would move: make it a channel first.
        keyed = "transparency" in image.info
        if keyed and image.mode == "L":
            return _in_srgb(image.convert("LA"))
        converted = _converted(image.convert("RGBA") if keyed else image, profile)
    return converted or image, converted is not None


def _converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    """An L, RGB, RGBA or CMYK image in sRGB; None if it is so already or the profile is of no use."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGBA" if image.mode == "RGBA" else "RGB",
            ImageCms.Intent.PERCEPTUAL,
        )
        if image.mode != "CMYK" and _moves_little(transform, image.mode):
            return None
        converted = transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return converted.getchannel("G") if image.mode == "L" else converted


def _moves_little(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a profile is sRGB by another name: it leaves 216 colours where they are."""
    colours = bytes(chain.from_iterable(product(range(0, 256, 51), repeat=3)))
    probe = Image.frombytes("RGB", (216, 1), colours).convert(mode)
    moved = ImageChops.difference(probe.convert("RGB"), transform.apply(probe).convert("RGB"))
    return all(high <= _SRGB_TOLERANCE for _, high in moved.getextrema())  # type: ignore[misc]


def _palette_converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    """A palette image whose palette is in sRGB: the indices, and so the size, stay."""
    colours = bytes(image.getpalette("RGB") or ())
    row = _converted(Image.frombytes("RGB", (len(colours) // 3, 1), colours), profile)
    if row:
        image.putpalette(row.tobytes())
    return image if row else None


def _eight_bit(image: Image.Image) -> Image.Image:
    """Sixteen bits of grey scaled to eight, white to white: Pillow's own conversion clips."""
    if image.mode != "I;16":
        return image
    grey = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    key = image.info.get("transparency")
    if key is None:
        return grey
    shown = ImageMath.lambda_eval(lambda of: (of["v"] != key) * 255, v=image.convert("I"))
    return Image.merge("LA", (grey, shown.convert("L")))


def _flat(image: Image.Image) -> Image.Image:
    """L or RGB, what was transparent on white."""
    if not image.has_transparency_data:
        mode = "L" if image.mode in {"1", "L"} else "RGB"
        return image if image.mode == mode else image.convert(mode)  # which copies even so
    rgba = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white.convert("L") if image.mode in {"L", "LA"} else white


# --- Choosing ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kept:
    """The original pixels' bytes without metadata, put together only if they are wanted."""

    pieces: Sequence[containers.Piece]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(map(len, self.pieces))

    def encoded(self, data: bytes, picture: _Picture) -> Encoded:
        """As the result."""
        made = b"".join(self.pieces)
        note = "original" if made == data else "stripped"
        width, height = picture.frames[0].size
        return Encoded(made, picture.kind, width, height, len(picture.frames), note)


def _best(data: bytes, picture: _Picture, recipe: Recipe) -> Encoded:
    """The smallest of what the recipe allows."""
    kept = _kept(data, picture)
    made = [_candidate(variant, data, picture, kept) for variant in _variants(picture, recipe)]
    best = min(made, key=lambda encoded: len(encoded.data))
    if recipe.format == "auto" and kept and picture.kind != "tiff" and kept.size < len(best.data):
        return kept.encoded(data, picture)
    return best


def _kept(data: bytes, picture: _Picture) -> _Kept | None:
    """What could be kept; None if those pixels are not right or not separable."""
    if picture.changed:
        return None
    if picture.survey.stripped:
        return _Kept(picture.survey.stripped)
    try:
        stripped = containers.strip(picture.kind, data)
    except containers.DamagedError:  # beside the pixels, which are whole
        return None
    return None if stripped is None else _Kept([stripped])


def _candidate(variant: _Variant, data: bytes, picture: _Picture, kept: _Kept | None) -> Encoded:
    """A variant of the picture, or its original bytes where encoding again does no good."""
    again = kept if variant.format == picture.kind else None
    if again and _settled(picture, variant):
        return again.encoded(data, picture)
    made = _encoded(variant, data, picture)
    worth = 1.0 if variant.lossless else WORTH_A_GENERATION
    if again and len(made.data) >= worth * again.size:
        return again.encoded(data, picture)
    return made


_STANDARD_LUMINANCE_SUM = 3_688  # of T.81 table K.1


def _jpeg_quality(tables: dict[int, list[int]]) -> int:
    """The quality at which libjpeg makes tables like the source's (jcparam.c); 100 for others."""
    if not tables:
        return 100
    scale = 100 * sum(tables[min(tables)]) / _STANDARD_LUMINANCE_SUM
    return round(5000 / scale if scale > 100 else (200 - scale) / 2)  # noqa: PLR2004


def _settled(picture: _Picture, variant: _Variant) -> bool:
    """Whether encoding again could only harm: see the module, and `Survey.pinned`."""
    return (
        picture.survey.pinned
        or picture.kind == "gif"
        or (picture.kind == "png" and picture.animated)
        or (picture.kind == "jpeg" and _jpeg_quality(picture.jpeg_tables) <= variant.quality)
    )


def _variants(picture: _Picture, recipe: Recipe) -> list[_Variant]:
    if recipe.format == "auto":
        names = [name for name in _sensible(picture) if _fits(picture, name)]
    else:
        names = [_kept_format(picture) if recipe.format == "keep" else recipe.format]
        if not _fits(picture, names[0]):
            raise ServiceError(
                ErrorCode.TOO_MANY_PIXELS,
                f"{names[0]} holds at most {LONGEST_SIDE[names[0]]:,} pixels a side.",
            )
    return [_variant(name, picture, recipe.quality) for name in names]


def _variant(name: str, picture: _Picture, quality: int | None) -> _Variant:
    stays = name == picture.kind or (name == "webp" and quality is None and _graphic(picture))
    lossless = name in {"png", "tiff", "gif"} or (
        name == "webp" and stays and picture.survey.lossless
    )
    return _Variant(name, lossless, quality or DEFAULT_QUALITY.get(name, 100))


def _kept_format(picture: _Picture) -> str:
    return "png" if picture.kind == "bmp" else picture.kind


def _fits(picture: _Picture, name: str) -> bool:
    return max(picture.frames[0].size) <= LONGEST_SIDE[name]


def _sensible(picture: _Picture) -> list[str]:
    """The formats among which ``auto`` takes the smallest.

    AVIF costs ten times the CPU, so only what came as AVIF is worth it.
    """
    if picture.kind == "avif":
        return ["avif"]
    if picture.animated:
        return ["webp"] if picture.kind == "webp" else ["webp", picture.kind]
    if picture.survey.lossless and (picture.transparent or _graphic(picture)):
        return ["png", "webp"]
    return ["webp"] if picture.transparent else ["jpeg", "webp"]


def _graphic(picture: _Picture) -> bool:
    """Whether a still picture has so few colours that lossy encoding would only blur them."""
    first = _eight_bit(picture.frames[0])
    most = GRAPHIC_GREYS if first.mode in {"L", "LA"} else GRAPHIC_COLOURS
    few = first.mode in {"1", "P"} or first.getcolors(most) is not None
    return few and picture.survey.lossless and not picture.animated


# --- Encoding ---------------------------------------------------------------------------------


def _encoded(variant: _Variant, data: bytes, picture: _Picture) -> Encoded:
    frames = _frames_for(variant.format, picture)
    options = _options(variant, picture)
    if len(frames) > 1:
        options |= {"save_all": True, "append_images": frames[1:]}
        if variant.format != "tiff":
            options |= {"duration": picture.durations_ms, "loop": picture.plays}
    out = BytesIO()
    frames[0].save(out, variant.format.upper(), **options)
    made = out.getvalue()
    if variant.format == "webp" and frames[0].mode == "RGBA" and len(frames) > 1:
        made = containers.declare_alpha(made)
    note = "larger" if len(made) > len(data) else "encoded"
    width, height = frames[0].size
    count = _frame_count(made, variant.format) if len(frames) > 1 else 1
    return Encoded(made, variant.format, width, height, count, note)


def _frames_for(name: str, picture: _Picture) -> list[Image.Image]:
    """The frames that a format can show, in modes that it knows."""
    if name == "tiff":
        return picture.frames
    if name == "jpeg":
        return [_flat(_eight_bit(picture.frames[0]))]
    if picture.animated:  # frames of one mode: a GIF's first has a palette and the rest have not
        mode = "RGBA" if picture.transparent else "RGB"
        return [_eight_bit(frame).convert(mode) for frame in picture.frames]
    if name == "png":
        return picture.frames[:1]
    first = _eight_bit(picture.frames[0])
    grey = "L" if name == "avif" and first.mode in {"1", "L"} else "RGB"  # WebP knows no grey
    return [first.convert("RGBA" if first.has_transparency_data else grey)]


def _options(variant: _Variant, picture: _Picture) -> dict[str, Any]:
    """What Pillow's encoder of a format is told."""
    if variant.format == "jpeg":
        # Progressive would double the CPU for the same bytes.
        options = {"optimize": True, "subsampling": picture.jpeg_sampling}
        if _jpeg_quality(picture.jpeg_tables) <= variant.quality:
            # Finer tables than the source's would add bytes and no detail.
            return {**options, "qtables": picture.jpeg_tables}
        return {**options, "quality": variant.quality}
    if variant.format == "png":
        # Frames as they are, over nothing: what is composed already must not be blended again.
        return {"optimize": True, "disposal": 0, "blend": 0}
    if variant.format == "webp":
        return {"lossless": variant.lossless, "quality": variant.quality, "exact": variant.lossless}
    if variant.format == "avif":
        chroma = {"subsampling": "4:4:4"} if picture.survey.fine_chroma else {}
        return {"quality": variant.quality, "speed": 8, "max_threads": 1, **chroma}
    bilevel = all(frame.mode == "1" for frame in picture.frames)
    return {"compression": "group4" if bilevel else "tiff_adobe_deflate"}


def _frame_count(data: bytes, name: str) -> int:
    """Frames of our own output: encoders merge equal ones into one that is shown for longer."""
    return int(getattr(Image.open(BytesIO(data), formats=[name.upper()]), "n_frames", 1))
