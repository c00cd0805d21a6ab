"""A bucket that fails the way Google's may: a proxy in front of the real fake-gcs-server.

``fault`` is asked once for each call that creates an object. For Redis and MongoDB, whose
protocols this does not read, ``tests.integration.proxy`` loses replies.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from enum import StrEnum

_CREATE = b"POST /upload/"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TAIL_BYTES = 64


class BucketFault(StrEnum):
    """What may happen to one call."""

    BUSY = "503"
    TOO_MANY = "429"
    RESET = "reset"
    STALL = "stall"
    BROKEN = "break on the last chunk"
    LOST = "success, reply lost"


_STATUS = {
    BucketFault.BUSY: b"503 Service Unavailable",
    BucketFault.TOO_MANY: b"429 Too Many Requests",
}


class BucketProxy:
    """Forwards calls one by one, and harms those that ``fault`` names.

    Args:
        port: the server's, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._connections: set[asyncio.Task[None]] = set()
        self.url = ""
        self.fault: Callable[[], BucketFault | None] = lambda: None
        self.healed = asyncio.Event()  # ends every stall
        self.stalled = asyncio.Event()
        self.harmed = 0

    def stall_next(self) -> None:
        """Hold the next create until ``heal``, then let it through."""
        faults = iter([BucketFault.STALL])
        self.healed.clear()
        self.stalled.clear()
        self.fault = lambda: next(faults, None)

    def heal(self) -> None:
        """Harm nothing any more."""
        self.fault = lambda: None
        self.healed.set()

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
                try:
                    while await self._forward(
                        from_client, to_client, from_server, to_server, answers
                    ):
                        pass
                finally:
                    await _cancel(answers)

    async def _forward(
        self,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        answers: asyncio.Task[None],
    ) -> bool:
        """Pass one call on, or harm it; whether the connection can go on."""
        head = await from_client.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        call = head + await from_client.readexactly(int(length[1]) if length else 0)
        fault = self.fault() if head.startswith(_CREATE) else None
        self.harmed += fault is not None
        match fault:
            case BucketFault.BUSY | BucketFault.TOO_MANY:
                to_client.write(
                    b"HTTP/1.1 %s\r\nContent-Length: 2\r\n"
                    b"Content-Type: application/json\r\n\r\n{}" % _STATUS[fault]
                )
                return True
            case BucketFault.RESET:
                _reset(to_client)
                return False
            case BucketFault.BROKEN:
                to_server.write(call[:-_TAIL_BYTES])
                await to_server.drain()
                _reset(to_client)
                return False
            case BucketFault.LOST:
                await _cancel(answers)
                to_server.write(call)
                await from_server.read(1)  # the server has done it
                _reset(to_client)
                return False
            case BucketFault.STALL:
                self.stalled.set()
                await self.healed.wait()
        to_server.write(call)
        return True


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


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a machine does that went away."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await source.read(1 << 20):
            target.write(chunk)
    target.close()


@contextlib.asynccontextmanager
async def before_bucket(port: int) -> AsyncIterator[BucketProxy]:
    """A proxy in front of the server on ``port``."""
    proxy = BucketProxy(port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0, limit=1 << 20)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
