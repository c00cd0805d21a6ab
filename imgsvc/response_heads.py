"""Reads the heads of answers before aiohttp does, so that what follows a good head cannot spoil it.

aiohttp's parser is given a packet at a time. If anything in one is wrong, all of it is lost: a
status that came with a body it must not have, or with a broken chunk, counted as no answer at all.
So it is given each head alone, and what every client overlooks in one is mended on the way: lines
that are no fields, folded ones, a length that is said twice or beside chunks (RFC 9112, sections 5
and 6.3). What is no head at all it gets as it is, and refuses.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

LONGEST_FIELD = 64 * 1024
"""Bytes of a header field; policies and cookies of real origins have more than 8 kB."""

MOST_FIELDS = 512

_LONGEST_HEAD = 256 * 1024
_TELLING = 64  # bytes that tell whether it is one
_BEGINNING = re.compile(rb"\s*(|H|HT|HTT|HTTP|HTTP/.*)", re.DOTALL)
_LONGEST_END = b"\r\n\r\n"
_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"\s*HTTP/[0-9]\.[0-9] +([0-9]{3})")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:(.*)", re.DOTALL)
_NO_VALUE = re.compile(rb"[\0\r]")


class Connector(aiohttp.TCPConnector):
    """Makes connections that read heads so; its arguments are those of aiohttp's."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._factory = functools.partial(_Connection, loop=self._loop)  # type: ignore[assignment]


class _Connection(ResponseHandler):
    """A connection of aiohttp's client."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._head: bytearray | None = None  # while one is read

    def set_response_params(self, **arguments: Any) -> None:
        """A request is about to be sent: an answer follows."""
        self._head = bytearray()
        super().set_response_params(**arguments)

    def data_received(self, data: bytes) -> None:
        """Pass heads on once they are whole, and everything else as it comes."""
        if self._head is None:
            self._pass_on(data)
            return
        self._reschedule_timeout()
        seen = max(0, len(self._head) - len(_LONGEST_END))
        self._head += data
        while self._head is not None and (end := _END.search(self._head, seen)):
            seen = 0
            head, rest = bytes(self._head[: end.end()]), bytes(self._head[end.end() :])
            status = _STATUS.match(head)
            interim = status and status[1].startswith(b"1") and status[1] != b"101"
            self._head = bytearray(rest) if interim else None
            self._pass_on(self._mended(head) if status else head)
            if not interim and rest:
                self._pass_on(rest)
        if self._head is None:
            return
        if not _BEGINNING.fullmatch(self._head[:_TELLING]):  # to be refused at once
            other, self._head = bytes(self._head), None
            self._pass_on(other)
        elif len(self._head) > _LONGEST_HEAD and self.transport:
            self.set_exception(HttpProcessingError(message="The head is too long."))
            self.transport.close()

    def _pass_on(self, data: bytes) -> None:
        payload = self._payload
        super().data_received(data)
        payload = payload or self._payload
        # The parser forgets the body in which something is wrong.
        if self.exception() and payload is not None and not payload.is_eof():
            payload.set_exception(aiohttp.ClientPayloadError("The body is malformed."))
            payload.feed_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Have who reads a body that broke off wake up.

        A reader that was about to look for more would not see the exception, and wait for ever.
        """
        payload = self._payload
        super().connection_lost(exc)
        if payload is not None and payload.exception():
            payload.feed_eof()

    def _mended(self, head: bytes) -> bytes:
        """A head of nothing but fields, with one length at most if there is but one."""
        first, *lines = _FOLD.sub(b" ", head.strip()).split(b"\n")
        found = [(field[1], field[2]) for line in lines if (field := _FIELD.match(line))]
        said: dict[bytes, bytes] = {}
        for name, value in found:
            said[name.lower()] = said.get(name.lower(), b"") + b"," + value
        lengths = {each.strip() for each in said.get(b"content-length", b"").split(b",")} - {b""}
        coding = said.get(b"transfer-encoding", b"").lower()
        chunked = b"chunked" in coding
        if not coding.replace(b"identity", b"").strip(b" ,\t\r"):  # which says nothing
            found = [field for field in found if field[0].lower() != b"transfer-encoding"]
        if chunked or len(lengths) == 1:
            found = [field for field in found if field[0].lower() != b"content-length"]
            found += [] if chunked else [(b"Content-Length", lengths.pop())]
        if chunked and lengths:
            self.force_close()  # who says both may mean either
        fields = (
            b"%b: %b\r\n" % (name, _NO_VALUE.sub(b" ", value).strip()) for name, value in found
        )
        return first.rstrip() + b"\r\n" + b"".join(fields) + b"\r\n"
