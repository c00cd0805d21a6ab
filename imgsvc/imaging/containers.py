"""Image files as containers of chunks: measured and stripped without decoding.

Every function here reads bytes and nothing else, so it can run before any decoder is trusted
with the file. `identify` names the formats; TIFF is in a file of its own.

Sources: JPEG ITU-T T.81 annex B; PNG third edition (W3C 2025) §5 and §11; GIF89a §17-26; WebP
RFC 9649 §2; ISO/IEC 14496-12 §4.2 (boxes) and AV1-ISOBMFF §2.3.3 (av1C).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from imgsvc.imaging import tiff

# Decoders take seconds for millions of empty parts, or of bytes between them that mean nothing.
_MOST_PARTS = 100_000
_MOST_FILL = 65_536

P = ParamSpec("P")
T = TypeVar("T")
Piece = bytes | memoryview


class DamagedError(ValueError):
    """The container breaks its own rules, most often by ending too early."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a container says about itself.

    Args:
        frames: pictures it holds, or 1 where only seeking can tell (TIFF, AVIF).
        scans: passes over the picture (progressive JPEG), otherwise 1.
        lossless: decoding gives back exactly what its maker encoded.
        pinned: it holds what an 8-bit sRGB decoder loses (16 bits per channel, a transfer
            curve, wide-gamut or HDR signalling), so that re-encoding would do harm.
        fine_chroma: an AVIF that stores colour at more than a quarter of the resolution.
        stripped: of a JPEG what ``strip`` would give, in pieces: looking for its markers takes
            milliseconds, so that is done once.
    """

    frames: int = 1
    scans: int = 1
    lossless: bool = False
    pinned: bool = False
    fine_chroma: bool = False
    stripped: Sequence[Piece] = ()


def _bounded(parts: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """A reader of parts that gives up on a flood of them."""

    @wraps(parts)
    def read(*args: P.args, **options: P.kwargs) -> Iterator[T]:
        for count, part in enumerate(parts(*args, **options)):
            if count == _MOST_PARTS:
                raise DamagedError("there are more parts than any picture needs")
            yield part

    return read


# --- JPEG -------------------------------------------------------------------------------------

# A marker is FF and a byte that is neither stuffing (00), a restart (D0-D7) nor fill (FF).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_TEM, _SOI, _EOI, _SOS, _APP0, _APP14, _APP15, _COM = 1, 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xEF, 0xFE


@_bounded
def _jpeg_segments(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Marker and body of each segment up to EOI; what follows is another file's business.

    A body begins with its two length bytes; that of SOS includes the entropy-coded data, which is
    nearly the whole file: it is not copied.
    """
    whole, at, fill = memoryview(data), 2, 0
    while found := _JPEG_MARKER.search(data, at):
        marker, start = data[found.end() - 1], found.end()
        fill += found.start() - at
        if fill > _MOST_FILL:
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
            following = _JPEG_MARKER.search(data, at)
            at = following.start() if following else len(data)
        yield marker, whole[start:at]
    raise DamagedError("the JPEG has no end marker where it could be")


def _survey_jpeg(data: bytes) -> Survey:
    """Tables, frames and scans stay as they are, with a bare JFIF header and Adobe's colour note."""
    scans, kept = 0, list[Piece]([b"\xff\xd8"])
    for marker, body in _jpeg_segments(data):
        head = bytes(body[2:14])
        if marker == _APP0 and head.startswith(b"JFIF\0"):
            # Version, unit and density; then the size of a thumbnail: none (JFIF 1.02).
            kept.append(b"\xff\xe0\x00\x10" + head.ljust(12, b"\0") + b"\0\0")
        elif marker == _APP14 and head.startswith(b"Adobe"):
            kept.append(b"\xff\xee\x00\x0e" + head.ljust(12, b"\0"))
        elif marker != _COM and not _APP0 <= marker <= _APP15:
            kept += [b"\xff", bytes([marker]), body]
        scans += marker == _SOS
    return Survey(scans=scans, stripped=[*kept, b"\xff\xd9"])


# --- PNG and APNG -----------------------------------------------------------------------------

_PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS sRGB gAMA cHRM cICP mDCV cLLI acTL fcTL fdAT".split()
)
_SRGB_GAMMA = range(45_000, 46_001)  # 1/2.2 in units of 1/100,000, as writers round it


@_bounded
def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
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


def _survey_png(data: bytes) -> Survey:
    chunks = list(_png_chunks(data))
    first = dict(reversed(chunks))
    depth, colour = first.get(b"IHDR", bytes(33))[16:18]
    # Pillow keeps 16 bits of grey only, and cannot run a colour profile over them.
    deep = depth == 16 and (colour != 0 or b"iCCP" in first)  # noqa: PLR2004
    gamma = int.from_bytes(first.get(b"gAMA", b"")[8:12], "big")
    curved = gamma not in {0, *_SRGB_GAMMA} and not first.keys() & {b"sRGB", b"iCCP"}
    return Survey(
        frames=max(1, sum(kind == b"fcTL" for kind, _ in chunks)) if b"acTL" in first else 1,
        lossless=True,
        pinned=deep or curved or b"cICP" in first,
    )


def _strip_png(data: bytes) -> bytes:
    """The chunks that make pixels and their colours; a profile only if the pixels need it."""
    kept = _PNG_KEPT | {b"iCCP"} if _survey_png(data).pinned else _PNG_KEPT
    return data[:8] + b"".join(whole for kind, whole in _png_chunks(data) if kind in kept)


# --- GIF --------------------------------------------------------------------------------------

_GIF_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


@_bounded
def _gif_blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Introducer (``,`` or ``!`` and label) and whole bytes of each block, header first."""
    try:
        at, fill = 13 + _colour_table(data[10]), 0
        yield b"", data[:at]
        while data[at] != ord(";"):
            start = at
            if data[at] == ord(","):
                name, at = b",", at + 10 + _colour_table(data[at + 9]) + 1
            elif data[at] == ord("!"):
                name, at = data[at : at + 2], at + 2
            elif data[at] == 0 and fill < _MOST_FILL:
                at, fill = at + 1, fill + 1  # stray terminators occur and every viewer skips them
                continue
            else:
                raise DamagedError("the GIF has an unknown block")
            while size := data[at]:
                at += size + 1
            at += 1
            yield name, data[start:at]
    except IndexError:
        raise DamagedError("the GIF has no trailer") from None


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that packed GIF flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _survey_gif(data: bytes) -> Survey:
    return Survey(frames=sum(name == b"," for name, _ in _gif_blocks(data)), lossless=True)


def _strip_gif(data: bytes) -> bytes:
    """Header, pictures, their timing and disposal, and the loop count."""
    kept = (
        whole
        for name, whole in _gif_blocks(data)
        if name in {b"", b",", b"!\xf9"} or (name == b"!\xff" and whole[3:14] in _GIF_LOOPS)
    )
    return b"".join(kept) + b";"


# --- WebP -------------------------------------------------------------------------------------

_WEBP_KEPT = frozenset({b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP
_WEBP_ALPHA_FLAG = 0x10
_ANMF_HEADER = 16


@_bounded
def _webp_chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Type and payload of each RIFF chunk between two offsets."""
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > end:
            raise DamagedError("a WebP chunk is cut off")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _webp_file(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a whole file; what follows the size its header declares is not part of it."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise DamagedError("the WebP is shorter than it declares")
    return _webp_chunks(data, 12, end)


def _webp_frame(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of one frame of an animation."""
    for kind, payload in _webp_chunks(body, _ANMF_HEADER, len(body)):
        if kind == b"ANMF":  # else each level would be copied with all levels in it
            raise DamagedError("a WebP frame holds frames")
        yield kind, payload


def _survey_webp(data: bytes) -> Survey:
    chunks = list(_webp_file(data))
    frames = [body for kind, body in chunks if kind == b"ANMF"]
    for body in frames:
        chunks += _webp_frame(body)
    return Survey(frames=max(1, len(frames)), lossless=all(kind != b"VP8 " for kind, _ in chunks))


def _strip_webp(data: bytes) -> bytes:
    body = b"WEBP" + _webp_kept(_webp_file(data))
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _webp_kept(chunks: Iterator[tuple[bytes, bytes]]) -> bytes:
    """The chunks that make pixels, written again, with the header's flags told the truth."""
    out = []
    for kind, payload in chunks:
        body = payload
        if kind not in _WEBP_KEPT:
            continue
        if kind == b"VP8X":
            body = bytes([body[0] & ~_WEBP_METADATA_FLAGS]) + body[1:]
        elif kind == b"ANMF":
            body = body[:_ANMF_HEADER] + _webp_kept(_webp_frame(body))
        out += [kind, len(body).to_bytes(4, "little"), body, b"\0" * (len(body) % 2)]
    return b"".join(out)


def declare_alpha(webp: bytes) -> bytes:
    """An animated WebP whose header says that one can see through it.

    libwebp 1.6 forgets to where each frame was cropped to what is opaque, and its decoder then
    shows the ground around them as black.
    """
    if webp[12:16] != b"VP8X":  # all frames were equal, and one still picture was written
        return webp
    flags = 20  # RFC 9649 §2.7.1
    return webp[:flags] + bytes([webp[flags] | _WEBP_ALPHA_FLAG]) + webp[flags + 1 :]


# --- AVIF -------------------------------------------------------------------------------------

_AVIF_BOXES = frozenset({b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid"})
_AVIF_METADATA = re.compile(rb"Exif|mime|uuid|udta|uri |free|skip")
_DEEP, _QUARTER_CHROMA = 0x40, 0x08 | 0x04  # av1C: high_bitdepth, chroma_subsampling_x and _y
_SDR_PRIMARIES, _SDR_CURVES = frozenset({1, 2}), frozenset({1, 2, 6, 13})  # ITU-T H.273


@_bounded
def _avif_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and whole bytes of the top-level boxes, up to the first thing that is none."""
    at = 0
    while at + 8 <= len(data) and (kind := data[at + 4 : at + 8]) in _AVIF_BOXES:
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        size = size or len(data) - at  # 0: up to the end of the file
        if size < 8 or at + size > len(data):  # noqa: PLR2004
            raise DamagedError("an AVIF box is cut off")
        yield kind, data[at : at + size]
        at += size


def _survey_avif(data: bytes) -> Survey:
    head = b"".join(box for kind, box in _avif_boxes(data) if kind != b"mdat")
    at = head.find(b"av1C")
    layout = head[at + 6] if at > 0 else _QUARTER_CHROMA
    at = head.find(b"colrnclx")
    primaries, curve = struct.unpack(">HH", head[at + 8 : at + 12]) if at > 0 else (1, 13)
    wide = primaries not in _SDR_PRIMARIES or curve not in _SDR_CURVES
    return Survey(
        pinned=wide or bool(layout & _DEEP),
        fine_chroma=layout & _QUARTER_CHROMA != _QUARTER_CHROMA,
    )


def _strip_avif(data: bytes) -> bytes | None:
    """The file without what trails it; None if it holds metadata, which offsets pin in place."""
    boxes = list(_avif_boxes(data))
    if any(kind != b"mdat" and _AVIF_METADATA.search(box) for kind, box in boxes):
        return None
    return b"".join(box for _, box in boxes)


# --- By format --------------------------------------------------------------------------------

_SURVEYS: dict[str, Callable[[bytes], Survey]] = {
    "jpeg": _survey_jpeg,
    "png": _survey_png,
    "gif": _survey_gif,
    "webp": _survey_webp,
    "avif": _survey_avif,
    "tiff": lambda data: Survey(lossless=True, pinned=tiff.deep(data)),
}
_STRIPS: dict[str, Callable[[bytes], bytes | None]] = {
    "jpeg": lambda data: b"".join(_survey_jpeg(data).stripped),
    "png": _strip_png,
    "gif": _strip_gif,
    "webp": _strip_webp,
    "avif": _strip_avif,
    "tiff": tiff.strip,
}


def body(kind: str, data: bytes) -> bytes:
    """What a decoder is to see: of an AVIF, whose offsets reach anywhere, only its own boxes.

    Raises:
        DamagedError: the container is cut off or breaks its own structure.
    """
    with _whole():
        return b"".join(box for _, box in _avif_boxes(data)) if kind == "avif" else data


def survey(kind: str, data: bytes) -> Survey:
    """What the container declares, read from its first byte to its end marker.

    Raises:
        DamagedError: the container is cut off or breaks its own structure.
    """
    with _whole():
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
    with _whole():
        return _STRIPS[kind](data) if kind in _STRIPS else None


@contextmanager
def _whole() -> Iterator[None]:
    """Reading past the end means that the file is cut off."""
    try:
        yield
    except (IndexError, struct.error):
        raise DamagedError("the container ends where it must not") from None
