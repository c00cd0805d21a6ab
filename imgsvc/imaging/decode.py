"""Decode a file into a picture: every frame in full, upright and in sRGB."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from PIL import Image, JpegImagePlugin
from PIL.ImageFile import ImageFile

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging.admit import Limits, admit_memory, admit_size, too_many_frames
from imgsvc.imaging.colour import in_plain_mode, in_srgb
from imgsvc.imaging.containers.structure import Survey
from imgsvc.imaging.picture import Picture

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
# Pillow's image objects of these formats carry no metadata once `info` is emptied.
_REUSABLE = frozenset({"JPEG", "PNG", "WEBP", "BMP"})


def decode(kind: str, data: bytes, survey: Survey, limits: Limits) -> Picture:
    """Decode every frame in full; Pillow's `verify()` would overlook damage.

    Args:
        kind: the format.
        data: the body of the container.
        survey: what the container declares.
        limits: what the image may cost.

    Raises:
        ServiceError: TOO_MANY_PIXELS, TOO_MANY_FRAMES, UNSUPPORTED_FORMAT or IMAGE_CORRUPT.
        NeedsMemoryError: ``limits.memory_bytes`` is too little.
        Exception: anything else that Pillow raises for a damaged file.
    """
    image = Image.open(BytesIO(data), formats=[kind.upper()])
    if kind == "jpeg":  # in one piece: else Pillow hands the decoder 64 kB at a time
        image.decodermaxblock = len(data)
    admit_size(image.size, survey.frames, limits)
    admit_memory(kind, image.size, survey.frames, limits)
    frames, durations_ms, changed = [], [], False
    for frame in _frames(image, kind, survey, limits):
        orientation = _orientation(frame, kind)
        frame.load()
        durations_ms.append(_duration_ms(frame, kind))
        own = frame if survey.frames == 1 and frame.format in _REUSABLE else frame.copy()
        # Pillow turns TIFF pages upright by itself when it loads them.
        upright = _upright(own, 1 if kind == "tiff" else orientation)
        coloured, recoloured = in_srgb(in_plain_mode(upright))
        frames.append(_without_info(coloured))
        # Pinned pixels are kept together with their profile.
        changed = changed or orientation != 1 or (recoloured and not survey.pinned)
    return Picture(
        kind=kind,
        survey=survey,
        frames=frames,
        durations_ms=durations_ms,
        plays=_plays(image, kind),
        changed=changed,
        jpeg_tables=getattr(image, "quantization", None) or {},
        jpeg_sampling=_jpeg_sampling(image),
    )


def _frames(image: ImageFile, kind: str, survey: Survey, limits: Limits) -> Iterator[ImageFile]:
    """The image at each of its frames, not yet loaded.

    Frames are counted by seeking: Pillow's `n_frames` would walk through a whole bomb.
    """
    if kind in {"jpeg", "bmp"}:  # the first picture of an MPO is the photograph
        yield image
        return
    if kind in {"tiff", "avif"} and _has_frame(image, limits.max_frames):
        raise too_many_frames(limits)
    index = first = int(getattr(image, "default_image", False))  # only viewers without APNG show it
    while _has_frame(image, index):
        admit_size(image.size, index - first + 1, limits)
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
    """The EXIF orientation, 1 to 8; 1 if there is none or it cannot be read."""
    try:
        if kind == "tiff":
            found = image.tag_v2.get(_ORIENTATION)  # type: ignore[attr-defined]
        else:  # EXIF alone, as in browsers: Pillow's `getexif` reads XMP too
            exif = Image.Exif()
            exif.load(image.info.get("exif") or b"")
            found = exif.get(_ORIENTATION)
    except Exception:  # noqa: BLE001
        return 1  # damaged metadata is about to be removed anyway
    return int(found) if found in _UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _duration_ms(image: ImageFile, kind: str) -> int:
    """How long a frame is shown. Like browsers, we show a GIF's 0 and 10 ms as 100 ms."""
    duration_ms = round(image.info.get("duration", 0))
    return 100 if kind == "gif" and duration_ms <= 10 else duration_ms  # noqa: PLR2004


def _plays(image: ImageFile, kind: str) -> int:
    """How often an animation runs; 0 is for ever. A GIF counts repeats, and none means one run."""
    loop = image.info.get("loop")
    if kind == "gif":
        return 1 if loop is None else loop and loop + 1
    return loop or 0


def _without_info(image: Image.Image) -> Image.Image:
    """The image without what Pillow's encoders would copy from `info` into the output."""
    transparency = image.info.get("transparency")
    image.info = {} if transparency is None else {"transparency": transparency}
    return image


def _jpeg_sampling(image: ImageFile) -> int:
    """The source's chroma sampling: 4:2:0 unless JPEG, 4:4:4 for one that Pillow cannot write."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.layers != 3:  # noqa: PLR2004
        return 2
    return max(0, JpegImagePlugin.get_sampling(image))
