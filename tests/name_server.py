"""A name server on loopback that answers as a test says, or keeps silent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

Answer = Iterable[str] | int | None
"""Addresses, of both families, and names for aliases; a code of failure; or no answer at all."""
Answers = Callable[[str], Answer]

NO_SUCH_NAME, FAILURE, REFUSED = 3, 2, 5  # RFC 1035, section 4.1.1
_TYPES = {1: socket.AF_INET, 28: socket.AF_INET6}
_ALIAS = 5


class NameServer(asyncio.DatagramProtocol):
    """Says of each name what ``answers`` says of it.

    Attributes:
        asked: the names that somebody wanted the IPv4 addresses of.
        silent: questions that are not answered, as name and address family.
        extended: how many questions came with EDNS (RFC 6891).
        ttl_s: for how long an answer may be remembered.
    """

    def __init__(self) -> None:
        self.answers: Answers = lambda _: NO_SUCH_NAME
        self.asked: list[str] = []
        self.silent: set[tuple[str, socket.AddressFamily]] = set()
        self.ttl_s = 0
        self.extended = 0
        self._kept: list[tuple[bytes, tuple[str, int]]] = []

    @property
    def address(self) -> str:
        """As ``[net] nameservers`` takes it."""
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, end = _name(data)
        self.extended += data[11]  # additional records
        kind = struct.unpack("!H", data[end : end + 2])[0]
        family = _TYPES[kind]
        if family is socket.AF_INET:
            self.asked.append(name)
        answer = self.answers(name)
        if answer is None or (name, family) in self.silent:
            self._kept.append((data, addr))
            return
        failure = answer if isinstance(answer, int) else 0
        records = [] if isinstance(answer, int) else list(self._records(name, kind, answer))
        head = struct.pack("!2sHHHHH", data[:2], 0x8180 | failure, 1, len(records), 0, 0)
        self._transport.sendto(head + data[12 : end + 4] + b"".join(records), addr)

    def answer_late(self) -> None:
        """Answer all that had no answer, as servers do that had to ask somebody slow."""
        kept, self._kept = self._kept, []
        for question in kept:
            self.datagram_received(*question)

    def _records(self, name: str, kind: int, answer: Iterable[str]) -> Iterable[bytes]:
        for each in answer:
            try:
                of = socket.AF_INET6 if ":" in each else socket.AF_INET
                address = socket.inet_pton(of, each)
            except OSError:
                yield self._record(name, _ALIAS, _encoded(each))
                further = self.answers(each)
                assert further is not None
                assert not isinstance(further, int)
                yield from self._records(each, kind, further)
            else:
                if of == _TYPES[kind]:
                    yield self._record(name, kind, address)

    def _record(self, name: str, kind: int, data: bytes) -> bytes:
        return _encoded(name) + struct.pack("!HHIH", kind, 1, self.ttl_s, len(data)) + data


def _name(data: bytes) -> tuple[str, int]:
    """The name that is asked for, and where it ends."""
    labels, at = [], 12
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
