"""JPEG files as segments.

Source: ITU-T T.81 annex B; JFIF 1.02 for the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imgsvc.imaging.containers.structure import MAX_FILL_BYTES, DamagedError, Piece, Survey, bounded

# A marker is FF and a byte that is neither stuffing (00), a restart (D0-D7) nor fill (FF).
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_TEM, _SOI, _EOI, _SOS, _APP0, _APP14, _APP15, _COM = 1, 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xEF, 0xFE


@bounded
def _segments(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Marker and body of each segment up to EOI; anything after it is not part of the picture.

    A body begins with its two length bytes. That of SOS includes the entropy-coded data, which is
    nearly the whole file, so it is not copied.
    """
    whole, at, fill = memoryview(data), 2, 0
    while found := _MARKER.search(data, at):
        marker, start = data[found.end() - 1], found.end()
        fill += found.start() - at
        if fill > MAX_FILL_BYTES:
            break
        if marker == _EOI:
            return
        if marker in {_SOI, _TEM}:  # stand alone, without length
            at, fill = start, fill + 2
            continue
        length = int.from_bytes(data[start : start + 2], "big")
        at = start + length
        if length < 2 or at > len(data):  # noqa: PLR2004
            break
        if marker == _SOS:
            following = _MARKER.search(data, at)
            at = following.start() if following else len(data)
        yield marker, whole[start:at]
    raise DamagedError("the JPEG has no end marker where it could be")


def survey(data: bytes) -> Survey:
    """Count scans, and keep tables, frames, scans, a bare JFIF header and Adobe's colour marker."""
    scans, kept = 0, list[Piece]([b"\xff\xd8"])
    for marker, body in _segments(data):
        head = bytes(body[2:14])
        if marker == _APP0 and head.startswith(b"JFIF\0"):
            # Version, unit and density; the size of the thumbnail becomes zero (JFIF 1.02).
            kept.append(b"\xff\xe0\x00\x10" + head.ljust(12, b"\0") + b"\0\0")
        elif marker == _APP14 and head.startswith(b"Adobe"):
            kept.append(b"\xff\xee\x00\x0e" + head.ljust(12, b"\0"))
        elif marker != _COM and not _APP0 <= marker <= _APP15:
            kept += [b"\xff", bytes([marker]), body]
        scans += marker == _SOS
    return Survey(scans=scans, stripped=[*kept, b"\xff\xd9"])


def strip(data: bytes) -> bytes:
    """What `survey` keeps, as a file."""
    return b"".join(survey(data).stripped)
