"""WebP files as RIFF chunks.

Source: RFC 9649 §2.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgsvc.imaging.containers.structure import DamagedError, Survey, bounded

_KEPT = frozenset({b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP
_ALPHA_FLAG = 0x10
_FRAME_HEADER_BYTES = 16


@bounded
def _chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Type and payload of each RIFF chunk between two offsets."""
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > end:
            raise DamagedError("a WebP chunk is cut off")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _file_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a file; anything beyond the size that its header declares is not part of it."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise DamagedError("the WebP is shorter than it declares")
    return _chunks(data, 12, end)


def _frame_chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of one frame of an animation."""
    for kind, payload in _chunks(body, _FRAME_HEADER_BYTES, len(body)):
        if kind == b"ANMF":  # each level would be copied with all levels in it
            raise DamagedError("a WebP frame holds frames")
        yield kind, payload


def survey(data: bytes) -> Survey:
    """Count frames, and see whether all are lossless."""
    chunks = list(_file_chunks(data))
    frames = [body for kind, body in chunks if kind == b"ANMF"]
    for body in frames:
        chunks += _frame_chunks(body)
    return Survey(frames=max(1, len(frames)), lossless=all(kind != b"VP8 " for kind, _ in chunks))


def strip(data: bytes) -> bytes:
    """Keep the chunks of pixels and of the animation."""
    body = b"WEBP" + _kept_chunks(_file_chunks(data))
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _kept_chunks(chunks: Iterator[tuple[bytes, bytes]]) -> bytes:
    """The chunks to keep, written again, with the metadata flags of the header cleared."""
    out = []
    for kind, payload in chunks:
        body = payload
        if kind not in _KEPT:
            continue
        if kind == b"VP8X":
            body = bytes([body[0] & ~_METADATA_FLAGS]) + body[1:]
        elif kind == b"ANMF":
            body = body[:_FRAME_HEADER_BYTES] + _kept_chunks(_frame_chunks(body))
        out += [kind, len(body).to_bytes(4, "little"), body, b"\0" * (len(body) % 2)]
    return b"".join(out)


def declare_alpha(webp: bytes) -> bytes:
    """Set the alpha flag in the header of an animated WebP.

    libwebp 1.6 leaves it out when it crops every frame to its opaque part, and its decoder then
    shows the area around the frames as black.
    """
    if webp[12:16] != b"VP8X":  # all frames were equal, so libwebp wrote a still picture
        return webp
    flags = 20  # RFC 9649 §2.7.1
    return webp[:flags] + bytes([webp[flags] | _ALPHA_FLAG]) + webp[flags + 1 :]
