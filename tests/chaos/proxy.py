"""Networks that fail, between replicas and real servers.

``BucketProxy`` has a bucket fail the way Google's may, ``LedgerProxy`` loses writes to MongoDB.
Each asks its ``fault`` once for each call that changes something. For Redis there is
``tests.integration.proxy``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

_CREATE = b"POST /upload/"
_DELETE = b"DELETE "
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TAIL_BYTES = 64

# OP_MSG: length and three more numbers, flags, section 0, length of its document, type of its
# first field; then that field's name, which is the command's.
_COMMAND_AT = 16 + 4 + 1 + 4 + 1
_WRITES = (b"insert\0", b"update\0", b"delete\0", b"findAndModify\0")


class BucketFault(StrEnum):
    """What may happen to the creation of an object."""

    BUSY = "503"
    TOO_MANY = "429"
    RESET = "reset"
    STALL = "stall"
    BROKEN = "break on the last chunk"
    LOST = "success, reply lost"


class LedgerFault(StrEnum):
    """What may happen to a write."""

    UNSENT = "writes lost"
    UNANSWERED = "replies to writes lost"


_STATUS = {
    BucketFault.BUSY: b"503 Service Unavailable",
    BucketFault.TOO_MANY: b"429 Too Many Requests",
}

F = TypeVar("F", BucketFault, LedgerFault)


@dataclass
class Link:
    """One client's connection through a proxy."""

    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_server: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    answers: asyncio.Task[None]  # what copies from server to client

    def reset(self) -> None:
        """Close with RST, as a machine does that went away."""
        linger = struct.pack("ii", 1, 0)
        sock = self.to_client.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.to_client.transport.abort()

    async def lose_answer(self, call: bytes) -> None:
        """Have the server do it, and the client not know."""
        await _cancelled(self.answers)
        self.to_server.write(call)
        await self.from_server.read(1)  # the server has done it
        self.reset()


class Proxy(ABC, Generic[F]):
    """Forwards calls one by one, and harms those that ``fault`` names.

    Args:
        port: the server's, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.fault: Callable[[bytes], F | None] = lambda _: None
        self.harmed = 0

    def heal(self) -> None:
        """Harm nothing any more."""
        self.fault = lambda _: None

    def harm_once(self, fault: F, what: bytes = b"", after: int = 0) -> None:
        """Harm one call.

        Args:
            fault: how.
            what: only a call that contains this.
            after: how many such calls pass before it.
        """
        faults = iter([None] * after + [fault])
        self.fault = lambda call: next(faults, None) if what in call else None

    def accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Take one connection."""
        task = asyncio.create_task(self._serve(from_client, to_client))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        """Cut all connections."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        async with _aborting(to_client):
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
            async with _aborting(to_server):
                answers = asyncio.create_task(_copy(from_server, to_client))
                link = Link(from_client, to_client, from_server, to_server, answers)
                try:
                    while await self._forward(link):
                        pass
                finally:
                    await _cancelled(answers)

    def _next_fault(self, call: bytes) -> F | None:
        fault = self.fault(call)
        self.harmed += fault is not None
        return fault

    @abstractmethod
    async def _forward(self, link: Link) -> bool:
        """Pass one call on, or harm it; whether the connection can go on."""


class BucketProxy(Proxy[BucketFault]):
    """Speaks HTTP, and harms what creates objects.

    Attributes:
        holds: whether no object may be deleted, as under a hold of the bucket's owner.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.holds = False
        self._healed = asyncio.Event()  # ends every stall
        self.stalled = asyncio.Event()

    @property
    def url(self) -> str:
        """What replicas take for the bucket's address."""
        return f"http://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Harm nothing any more, hold nothing, and let go on what stalls."""
        super().heal()
        self.holds = False
        self._healed.set()
        self._healed = asyncio.Event()

    async def _forward(self, link: Link) -> bool:
        head = await link.from_client.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        call = head + await link.from_client.readexactly(int(length[1]) if length else 0)
        if self.holds and head.startswith(_DELETE):
            _refuse(link, b"403 Forbidden")
            return True
        fault = self._next_fault(call) if head.startswith(_CREATE) else None
        match fault:
            case BucketFault.BUSY | BucketFault.TOO_MANY:
                _refuse(link, _STATUS[fault])
                return True
            case BucketFault.RESET:
                link.reset()
                return False
            case BucketFault.BROKEN:
                link.to_server.write(call[:-_TAIL_BYTES])
                await link.to_server.drain()
                link.reset()
                return False
            case BucketFault.LOST:
                await link.lose_answer(call)
                return False
            case BucketFault.STALL:
                self.stalled.set()
                await self._healed.wait()
        link.to_server.write(call)
        return True


class LedgerProxy(Proxy[LedgerFault]):
    """Speaks MongoDB's protocol as far as to tell writes from the rest."""

    @property
    def uri(self) -> str:
        """What replicas take for MongoDB's address."""
        return f"mongodb://127.0.0.1:{self.port}/"

    async def _forward(self, link: Link) -> bool:
        size = await link.from_client.readexactly(4)
        (length,) = struct.unpack("<i", size)
        call = size + await link.from_client.readexactly(length - 4)
        writes = call[_COMMAND_AT:].startswith(_WRITES)
        match self._next_fault(call) if writes else None:
            case LedgerFault.UNSENT:
                link.reset()
                return False
            case LedgerFault.UNANSWERED:
                await link.lose_answer(call)
                return False
        link.to_server.write(call)
        return True


def _refuse(link: Link, status: bytes) -> None:
    link.to_client.write(
        b"HTTP/1.1 %s\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}" % status
    )


@contextlib.asynccontextmanager
async def _aborting(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close a connection at the end, at once, and take its end for no error."""
    try:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            yield
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await source.read(1 << 20):
            target.write(chunk)
    target.close()


P = TypeVar("P", BucketProxy, LedgerProxy)


@contextlib.asynccontextmanager
async def serving(proxy: P) -> AsyncIterator[P]:
    """Have a proxy take connections."""
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0, limit=1 << 20)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
