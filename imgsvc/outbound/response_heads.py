"""Splits the head of a response off before aiohttp parses it, so that a bad body cannot spoil it.

aiohttp hands its parser a packet at a time. If anything in one is wrong, all of it is lost: a status
that came with a body it must not have, or with a broken chunk, counted as no answer at all. So the
parser gets each head alone. On the way we mend what every client overlooks: lines that are no
fields, folded lines, a length that is given twice or beside chunks (RFC 9112, sections 5 and 6.3).
If a head does not say where its body ends, its status counts, and its body counts as cut off. What
is no head at all goes to the parser as it is, and is refused.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

LONGEST_HEAD = 256 * 1024
"""Bytes of a head; policies and cookies of real origins have more than 8 kB each."""

MOST_FIELDS = 4096
"""Lines of a head that are looked at."""

_TELLING = 64  # bytes that tell whether it is one
_BEGINNING = re.compile(rb"\s*(|H|HT|HTT|HTTP|HTTP/.*)", re.DOTALL)
_LONGEST_END = b"\r\n\r\n"
_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"\s*HTTP/[0-9]\.[0-9] +([0-9]{3})")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:(.*)", re.DOTALL)
_NO_VALUE = re.compile(rb"[\0\r]")
_NO_CODING = frozenset({b"", b"identity"})
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Connector(aiohttp.TCPConnector):
    """Makes connections that do so; takes the same arguments as aiohttp's connector."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._factory = functools.partial(_Connection, loop=self._loop)  # type: ignore[assignment]


class _Connection(ResponseHandler):
    """A connection of aiohttp's client."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._head: bytearray | None = None  # while one is read
        self._is_framed = True  # whether the last head says where its body ends

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
            head = bytes(self._head[: end.end()])
            del self._head[: end.end()]
            status = _STATUS.match(head)
            if status and status[1].startswith(b"1") and status[1] != b"101":  # another follows
                self._pass_on(self._mended(head))
                continue
            rest, self._head = bytes(self._head), None
            self._pass_on(self._mended(head) if status else head)
            if not self._is_framed and self.transport:
                self._cut_off(self._payload)
                self.transport.close()
            elif rest:
                self._pass_on(rest)
        if self._head is None:
            return
        if not _BEGINNING.fullmatch(self._head[:_TELLING]):  # to be refused at once
            other, self._head = bytes(self._head), None
            self._pass_on(other)
        elif len(self._head) > LONGEST_HEAD and self.transport:
            self.set_exception(HttpProcessingError(message="The head is too long."))
            self.transport.close()

    def _pass_on(self, data: bytes) -> None:
        payload = self._payload
        super().data_received(data)
        payload = payload or self._payload
        # The parser forgets the body in which something is wrong.
        if self.exception():
            self._cut_off(payload)

    def _cut_off(self, payload: aiohttp.StreamReader | None) -> None:
        if payload is not None and not payload.is_eof():
            payload.set_exception(aiohttp.ClientPayloadError("The body is malformed."))
            payload.feed_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wake up whoever reads a body that broke off.

        A reader that was about to ask for more would not see the exception, and would wait for ever.
        """
        payload = self._payload
        super().connection_lost(exc)
        if payload is not None and payload.exception():
            payload.feed_eof()

    def _mended(self, head: bytes) -> bytes:
        """A head with nothing but fields, at most one of which says where the body ends."""
        lines = _FOLD.sub(b" ", head.strip()).split(b"\n", MOST_FIELDS)
        fields: list[tuple[bytes, bytes]] = []
        framing: dict[bytes, list[bytes]] = {b"content-length": [], b"transfer-encoding": []}
        for field in filter(None, map(_FIELD.match, lines[1:MOST_FIELDS])):
            name, value = field[1], _NO_VALUE.sub(b" ", field[2]).strip()
            if (words := framing.get(name.lower())) is not None:
                words += (word.strip() for word in value.lower().split(b","))
            else:
                fields.append((name, value))
        codings = [word for word in framing[b"transfer-encoding"] if word not in _NO_CODING]
        lengths = {word.lstrip(b"0") or b"0" for word in framing[b"content-length"] if word}
        self._is_framed = len(lines) <= MOST_FIELDS
        if codings:
            coding = b"chunked" if b"chunked" in codings else codings[-1]
            fields.append((b"Transfer-Encoding", coding))
            if lengths:
                self.force_close()  # who says both may mean either
        elif lengths:
            length = lengths.pop()
            if lengths or not _LENGTH.fullmatch(length):
                self._is_framed = False
            else:
                fields.append((b"Content-Length", length))
        written = b"".join(b"%b: %b\r\n" % field for field in fields)
        return b"%b\r\n%b\r\n" % (lines[0].rstrip(), written)
