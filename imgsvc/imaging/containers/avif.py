"""AVIF files as boxes.

Sources: ISO/IEC 14496-12 §4.2 (boxes), AV1-ISOBMFF §2.3.3 (av1C), ITU-T H.273 (colours).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from imgsvc.imaging.containers.structure import DamagedError, Survey, bounded

_TOP_LEVEL = frozenset({b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid"})
_METADATA = re.compile(rb"Exif|mime|uuid|udta|uri |free|skip")
_DEEP, _QUARTER_CHROMA = 0x40, 0x08 | 0x04  # av1C: high_bitdepth, chroma_subsampling_x and _y
_SDR_PRIMARIES, _SDR_CURVES = frozenset({1, 2}), frozenset({1, 2, 6, 13})  # ITU-T H.273


@bounded
def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and whole bytes of each top-level box, up to the first bytes that are not a box."""
    at = 0
    while at + 8 <= len(data) and (kind := data[at + 4 : at + 8]) in _TOP_LEVEL:
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        size = size or len(data) - at  # 0: up to the end of the file
        if size < 8 or at + size > len(data):  # noqa: PLR2004
            raise DamagedError("an AVIF box is cut off")
        yield kind, data[at : at + size]
        at += size


def survey(data: bytes) -> Survey:
    """Look for what an 8-bit sRGB decoder would lose, and how finely colour is stored."""
    head = b"".join(box for kind, box in _boxes(data) if kind != b"mdat")
    at = head.find(b"av1C")
    layout = head[at + 6] if at > 0 else _QUARTER_CHROMA
    at = head.find(b"colrnclx")
    primaries, curve = struct.unpack(">HH", head[at + 8 : at + 12]) if at > 0 else (1, 13)
    wide = primaries not in _SDR_PRIMARIES or curve not in _SDR_CURVES
    return Survey(
        pinned=wide or bool(layout & _DEEP),
        fine_chroma=layout & _QUARTER_CHROMA != _QUARTER_CHROMA,
    )


def strip(data: bytes) -> bytes | None:
    """Drop what follows the boxes; None if there is metadata, because offsets are absolute."""
    boxes = list(_boxes(data))
    if any(kind != b"mdat" and _METADATA.search(box) for kind, box in boxes):
        return None
    return b"".join(box for _, box in boxes)


def body(data: bytes) -> bytes:
    """The boxes alone, without what follows them."""
    return b"".join(box for _, box in _boxes(data))
