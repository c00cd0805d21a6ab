"""Image files as containers of chunks: surveyed and stripped without decoding, a file for each format.

Every function here reads bytes and nothing else, so it can run before any decoder is trusted with
the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imgsvc.imaging.containers import avif, gif, jpeg, png, tiff, webp
from imgsvc.imaging.containers.structure import DamagedError, Survey

_SURVEYS: dict[str, Callable[[bytes], Survey]] = {
    "jpeg": jpeg.survey,
    "png": png.survey,
    "gif": gif.survey,
    "webp": webp.survey,
    "avif": avif.survey,
    "tiff": tiff.survey,
}
_STRIPS: dict[str, Callable[[bytes], bytes | None]] = {
    "jpeg": jpeg.strip,
    "png": png.strip,
    "gif": gif.strip,
    "webp": webp.strip,
    "avif": avif.strip,
    "tiff": tiff.strip,
}


def body(kind: str, data: bytes) -> bytes:
    """The bytes that a decoder may see: offsets in an AVIF reach anywhere, so only its boxes.

    Raises:
        DamagedError: the container is cut off or breaks its own structure.
    """
    with _cut_off_is_damage():
        return avif.body(data) if kind == "avif" else data


def survey(kind: str, data: bytes) -> Survey:
    """What the container declares, read from its first byte to its end marker.

    Raises:
        DamagedError: the container is cut off or breaks its own structure.
    """
    with _cut_off_is_damage():
        return _SURVEYS[kind](data) if kind in _SURVEYS else Survey(lossless=True)


def strip(kind: str, data: bytes) -> bytes | None:
    """The same pixels, bit for bit, without metadata and without anything after the end.

    Removes EXIF, XMP, IPTC, comments, thumbnails, and a colour profile unless the pixels need
    it; so call this only where the profile is sRGB or the survey says ``pinned``.

    Returns:
        The bytes, or None where the container does not let metadata go without re-encoding.

    Raises:
        DamagedError: the container is cut off or breaks its own structure.
    """
    with _cut_off_is_damage():
        return _STRIPS[kind](data) if kind in _STRIPS else None


@contextmanager
def _cut_off_is_damage() -> Iterator[None]:
    """Reading beyond the end means that the file is cut off."""
    try:
        yield
    except (IndexError, struct.error):
        raise DamagedError("the container ends too early") from None
