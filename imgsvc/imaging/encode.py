"""Encode a picture as a file of one format."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from imgsvc.imaging.colour import eight_bit, flat
from imgsvc.imaging.containers.webp import declare_alpha
from imgsvc.imaging.picture import Picture
from imgsvc.imaging.quality import jpeg_quality


@dataclass(frozen=True, slots=True)
class Encoded:
    """The resulting file.

    Args:
        data: the file.
        format: a key of ``model.FILE_TYPES``.
        width: pixels of the first frame, upright.
        height: likewise.
        frames: frames or pages in ``data``.
        note: ``encoded``; ``stripped``: the original without metadata; ``original``: there was
            nothing to strip; ``larger``: correctness or the wanted format took more bytes than
            the original has.
    """

    data: bytes
    format: str
    width: int
    height: int
    frames: int
    note: str


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to encode a picture."""

    format: str
    lossless: bool
    quality: int


def encode_picture(encoding: Encoding, original: bytes, picture: Picture) -> Encoded:
    """Encode a picture.

    Args:
        encoding: the format and quality.
        original: the file that it comes from, whose size is compared.
        picture: what was decoded from it.
    """
    frames = _frames_for(encoding.format, picture)
    options = _options(encoding, picture)
    if len(frames) > 1:
        options |= {"save_all": True, "append_images": frames[1:]}
        if encoding.format != "tiff":
            options |= {"duration": picture.durations_ms, "loop": picture.plays}
    out = BytesIO()
    frames[0].save(out, encoding.format.upper(), **options)
    made = out.getvalue()
    if encoding.format == "webp" and frames[0].mode == "RGBA" and len(frames) > 1:
        made = declare_alpha(made)
    note = "larger" if len(made) > len(original) else "encoded"
    width, height = frames[0].size
    count = _frame_count(made, encoding.format) if len(frames) > 1 else 1
    return Encoded(made, encoding.format, width, height, count, note)


def _frames_for(name: str, picture: Picture) -> list[Image.Image]:
    """The frames that a format can hold, in modes that it knows."""
    if name == "tiff":
        return picture.frames
    if name == "jpeg":
        return [flat(eight_bit(picture.frames[0]))]
    if picture.animated:  # all need one mode, and only the first frame of a GIF has a palette
        mode = "RGBA" if picture.transparent else "RGB"
        return [eight_bit(frame).convert(mode) for frame in picture.frames]
    if name == "png":
        return picture.frames[:1]
    first = eight_bit(picture.frames[0])
    grey = "L" if name == "avif" and first.mode in {"1", "L"} else "RGB"  # WebP has no grey
    return [first.convert("RGBA" if first.has_transparency_data else grey)]


def _options(encoding: Encoding, picture: Picture) -> dict[str, Any]:
    """The options of Pillow's encoder."""
    if encoding.format == "jpeg":
        # Progressive costs twice the CPU and saves nothing.
        options = {"optimize": True, "subsampling": picture.jpeg_sampling}
        if jpeg_quality(picture.jpeg_tables) <= encoding.quality:
            # Finer tables than the source's would add bytes and no detail.
            return {**options, "qtables": picture.jpeg_tables}
        return {**options, "quality": encoding.quality}
    if encoding.format == "png":
        # Each frame replaces the one before: decoded frames are composed already.
        return {"optimize": True, "disposal": 0, "blend": 0}
    if encoding.format == "webp":
        return {
            "lossless": encoding.lossless,
            "quality": encoding.quality,
            "exact": encoding.lossless,
        }
    if encoding.format == "avif":
        chroma = {"subsampling": "4:4:4"} if picture.survey.fine_chroma else {}
        return {"quality": encoding.quality, "speed": 8, "max_threads": 1, **chroma}
    bilevel = all(frame.mode == "1" for frame in picture.frames)
    return {"compression": "group4" if bilevel else "tiff_adobe_deflate"}


def _frame_count(data: bytes, name: str) -> int:
    """Count the frames of our own output: encoders merge equal frames into one shown longer."""
    return int(getattr(Image.open(BytesIO(data), formats=[name.upper()]), "n_frames", 1))
