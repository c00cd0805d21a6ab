"""What ``Content-Encoding`` says about a body, and inflating it within limits (RFC 9110, section 8.4.1).

We ask for files without a coding. Some origins send one all the same, and more of them label a file
with something that is no coding: a character set, how it was uploaded, or no word at all.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Iterable

from imgsvc.domain.errors import ErrorCode, ServiceError

Sniff = Callable[[bytes], str | None]
"""Tells the image format that a file's first bytes announce, if they do."""

_INFLATED = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
# The rest of the register of content codings that change a body.
_REFUSED = frozenset(
    {"aes128gcm", "br", "compress", "dcb", "dcz", "exi", "pack200-gzip", "x-compress", "zstd"}
)
_PIECE = 256 * 1024
_RATIO = 100  # a picture without loss shrinks by less, but for very plain ones ...
_PLAIN = 4 * 1024 * 1024  # ... which may have this for nothing
_TELLING = 32  # bytes of a body that tell what it is
_GZIP = b"\x1f\x8b"
_MOST_MEMBERS = 100


def coding(labels: Iterable[str]) -> str | None:
    """How a body is said to be compressed; None if nothing real is said.

    Args:
        labels: the values of its ``Content-Encoding`` headers.
    """
    words = [word.strip().lower() for word in ",".join(labels).split(",")]
    return ", ".join(word for word in words if word in _INFLATED or word in _REFUSED)[:100] or None


async def decoded(pieces: AsyncIterator[bytes], name: str, sniff: Sniff) -> AsyncIterator[bytes]:
    """A body without its coding, in pieces of at most 256 kB.

    What begins as an image, or is called gzip and does not begin so, is passed on as it is: only
    the label is wrong then.

    Args:
        pieces: of the body.
        name: of the coding; gzip, or deflate with or without zlib's frame, are undone.
        sniff: tells an image by its first bytes.

    Raises:
        ServiceError: FETCH_TRUNCATED if it ends too early, FETCH_STATUS if it is damaged or in
            another coding, TOO_LARGE if it grows beyond reason.
    """
    start = b""
    async for piece in pieces:
        start += piece
        if len(start) >= _TELLING:
            break
    kind = _INFLATED.get(name)
    if not start or sniff(start) or (kind == "gzip" and not start.startswith(_GZIP)):
        yield start
        async for piece in pieces:
            yield piece
        return
    if not kind:
        raise ServiceError(
            ErrorCode.FETCH_STATUS,
            f"The origin sent a body compressed as {name} although asked not to; it should send "
            "the file as it is.",
        )
    inflater, piece = _Inflater(kind, start), start
    try:
        while piece:
            for out in inflater.fed(piece):
                yield out
            piece = await anext(pieces, b"")
    except zlib.error:
        raise ServiceError(
            ErrorCode.FETCH_STATUS, f"The origin sent a {kind} body that cannot be inflated."
        ) from None
    if not inflater.is_complete:
        raise ServiceError(ErrorCode.FETCH_TRUNCATED)


class _Inflater:
    def __init__(self, name: str, start: bytes) -> None:
        if name == "gzip":
            self._window = 16 + zlib.MAX_WBITS
        else:  # the first two bytes of zlib's frame (RFC 1950) are a multiple of 31
            framed = start[0] & 0xF == zlib.DEFLATED and int.from_bytes(start[:2], "big") % 31 == 0
            self._window = zlib.MAX_WBITS if framed else -zlib.MAX_WBITS
        self._stream = zlib.decompressobj(self._window)
        self._members = 1
        self._in = self._out = 0

    @property
    def is_complete(self) -> bool:
        """Whether the stream has come to its own end; what follows that is ignored."""
        return self._stream.eof

    def fed(self, data: bytes) -> Iterable[bytes]:
        self._in += len(data)
        while data and not self._stream.eof:
            out = self._stream.decompress(data, _PIECE)
            self._out += len(out)
            if self._out > self._in * _RATIO + _PLAIN:
                raise ServiceError(
                    ErrorCode.TOO_LARGE,
                    f"The compressed body grows to more than {_RATIO} times its size.",
                )
            if out:
                yield out
            data = self._stream.unconsumed_tail
            if self._stream.eof and self._is_followed():
                data = self._stream.unused_data
                self._stream = zlib.decompressobj(self._window)
                self._members += 1

    def _is_followed(self) -> bool:
        """Whether another gzip follows: a file may consist of several (RFC 1952, section 2.2)."""
        follows = self._window > zlib.MAX_WBITS and self._stream.unused_data.startswith(_GZIP)
        return follows and self._members < _MOST_MEMBERS
