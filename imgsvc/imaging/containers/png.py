"""PNG and APNG files as chunks.

Source: PNG third edition (W3C 2025) §5 and §11.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgsvc.imaging.containers.structure import DamagedError, Survey, bounded

_KEPT = frozenset(b"IHDR PLTE IDAT IEND tRNS sRGB gAMA cHRM cICP mDCV cLLI acTL fcTL fdAT".split())
_SRGB_GAMMA = range(45_000, 46_001)  # 1/2.2 in units of 1/100,000, as writers round it


@bounded
def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and whole bytes (length to CRC) of each chunk up to and with IEND."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        kind = data[at + 4 : at + 8]
        yield kind, data[at:end]
        if kind == b"IEND":
            return
        at = end
    raise DamagedError("the PNG has no end chunk")


def survey(data: bytes) -> Survey:
    """Count frames, and look for what an 8-bit sRGB decoder would lose."""
    chunks = list(_chunks(data))
    first = dict(reversed(chunks))
    depth, colour = first.get(b"IHDR", bytes(33))[16:18]
    # Pillow keeps 16 bits only for grey, and cannot apply a colour profile to them.
    deep = depth == 16 and (colour != 0 or b"iCCP" in first)  # noqa: PLR2004
    gamma = int.from_bytes(first.get(b"gAMA", b"")[8:12], "big")
    curved = gamma not in {0, *_SRGB_GAMMA} and not first.keys() & {b"sRGB", b"iCCP"}
    return Survey(
        frames=max(1, sum(kind == b"fcTL" for kind, _ in chunks)) if b"acTL" in first else 1,
        lossless=True,
        pinned=deep or curved or b"cICP" in first,
    )


def strip(data: bytes) -> bytes:
    """Keep the chunks of pixels and their colours; a profile only if the pixels need it."""
    kept = _KEPT | {b"iCCP"} if survey(data).pinned else _KEPT
    return data[:8] + b"".join(whole for kind, whole in _chunks(data) if kind in kept)
