"""TIFF files as directories of tags.

Source: TIFF 6.0 §2 (structure) and its tag tables; EXIF 2.32 §4.6.3 for nested directories.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imgsvc.imaging.containers.structure import Survey

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_NESTED = frozenset({34665, 34853, 40965})  # EXIF, GPS, interoperability
_MOST_ENTRIES = 256  # a camera writes 60; wiping one may cost as much as the whole file
_SUB_IFDS, _BITS_PER_SAMPLE, _ICC = 330, 258, 34675
# Baseline and extension tags that say how pixels are stored. All others describe the picture.
_KEPT = frozenset(
    {254, 255, *range(256, 260), 262, 263, 264, 265, 266, 273, 274, *range(277, 285)}
    | {290, 291, 292, 293, 296, 301, *range(317, 326), 332, 334, 336, *range(338, 342), 347}
    | {*range(512, 522), *range(529, 533), _ICC}
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tag of a TIFF directory: its twelve bytes, and where its value lies."""

    tag: int
    raw: bytes
    start: int
    size: int


def _directory(data: bytes | bytearray, order: str, at: int) -> tuple[list[_Entry], int]:
    """The entries of the directory at an offset, and the offset of the next one (0: none)."""
    (count,) = struct.unpack_from(order + "H", data, at)
    entries = []
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from(order + "HHII", data, place)
        size = _SIZES.get(kind, 1) * number
        start = place + 8 if size <= 4 else value  # noqa: PLR2004
        entries.append(_Entry(tag, bytes(data[place : place + 12]), start, size))
    (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    return entries, following


def _start(data: bytes) -> tuple[str, int]:
    """Byte order and offset of the first directory; 0 for BigTIFF, which stays unread."""
    order = "<" if data[:2] == b"II" else ">"
    version, first = struct.unpack_from(order + "HI", data, 2)
    return order, first if version == 42 else 0  # noqa: PLR2004


def survey(data: bytes) -> Survey:
    """What the file declares; pages are counted by the decoder.

    Raises:
        struct.error: the file is cut off.
    """
    return Survey(lossless=True, pinned=_is_deep(data))


def _is_deep(data: bytes) -> bool:
    """Whether the first page has several channels of more than 8 bits each."""
    order, first = _start(data)
    entries = _directory(data, order, first)[0] if first else []
    for entry in entries:
        if entry.tag == _BITS_PER_SAMPLE and entry.size > 2:  # noqa: PLR2004
            (bits,) = struct.unpack_from(order + "H", data, entry.start)
            return bool(bits > 8)  # noqa: PLR2004
    return False


def strip(data: bytes) -> bytes | None:
    """The same file with its metadata overwritten by zeros; None if that is not simple.

    Offsets in a TIFF are absolute, so nothing moves except entries within their directory.

    Raises:
        struct.error: the file is cut off.
    """
    out = bytearray(data)
    order, at = _start(data)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        entries, following = _directory(data, order, at)
        if len(entries) > _MOST_ENTRIES or any(entry.tag == _SUB_IFDS for entry in entries):
            return None
        kept = [entry for entry in entries if entry.tag in _KEPT]
        for entry in entries:
            if entry not in kept:
                _wipe_entry(out, order, entry, depth=0)
        rewritten = struct.pack(order + "H", len(kept)) + b"".join(entry.raw for entry in kept)
        rewritten += struct.pack(order + "I", following)
        out[at : at + 6 + 12 * len(entries)] = rewritten.ljust(6 + 12 * len(entries), b"\0")
        at = following
    return bytes(out) if seen else None


def _wipe_entry(out: bytearray, order: str, entry: _Entry, depth: int) -> None:
    """Zero a tag's value, or the directory that it points to with all values there."""
    if entry.tag in _NESTED and depth < 2:  # noqa: PLR2004
        (at,) = struct.unpack(order + "I", entry.raw[8:])
        nested, _ = _directory(out, order, at)
        for inner in nested:
            _wipe_entry(out, order, inner, depth + 1)
        out[at : at + 6 + 12 * len(nested)] = bytes(6 + 12 * len(nested))
    end = min(entry.start + entry.size, len(out))
    out[entry.start : end] = bytes(max(0, end - entry.start))
