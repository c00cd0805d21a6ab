"""A network that loses answers and holds questions back, between a client and a real server."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

_TURNS = 10  # of the loop, within which the last connection that was accepted becomes known


class Proxy:
    """Forwards connections; ``hold`` and ``lose_reply_to`` interfere with one message each.

    Args:
        port: the server's, on loopback.
        tls: to end TLS with, if the clients speak it.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.server_port = port  # of connections to come
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self.port = 0
        self.hold: bytes | None = None
        self.held = asyncio.Event()
        self.lose_reply_to: bytes | None = None
        self.lost = asyncio.Event()
        self.instead: dict[bytes, bytes] = {}  # what is written otherwise, in either direction

    def release(self) -> None:
        """Let go on what is held; set ``hold`` first if something is to be held after it."""
        self.held.clear()
        self._released.set()

    def cut(self) -> None:
        """Close all connections; what is held is never sent."""
        for connection in self._connections:
            connection.cancel()

    async def close(self) -> None:
        """Close all connections and wait for their end."""
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Take one connection."""
        task = asyncio.create_task(self._serve(from_client, to_client))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # A task that is cancelled before it has begun closes nothing.
        task.add_done_callback(lambda _: to_client.transport.abort())

    async def _serve(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        async with _closing(to_client):
            if self._tls:  # not by the listening socket, which keeps handshakes to itself
                await to_client.start_tls(self._tls)
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port)
            async with _closing(to_server):
                answers = asyncio.create_task(self._answer(from_server, to_client))
                try:
                    while chunk := await from_client.read(1 << 20):
                        if self.hold and self.hold in chunk:
                            self.hold = None
                            self._released.clear()
                            self.held.set()
                            await self._released.wait()
                        if self.lose_reply_to and self.lose_reply_to in chunk:
                            self.lose_reply_to = None
                            answers.cancel()
                            await asyncio.gather(answers, return_exceptions=True)
                            to_server.write(chunk)
                            await from_server.read(1)  # the server has done it
                            self.lost.set()
                            return
                        to_server.write(self._written(chunk))
                finally:
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)

    async def _answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(1 << 20):
                target.write(self._written(chunk))
        target.close()

    def _written(self, chunk: bytes) -> bytes:
        for said, instead in self.instead.items():
            chunk = chunk.replace(said, instead)
        return chunk


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close a connection at the end, at once: a network does not wait for buffers to empty."""
    try:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            yield
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def between(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy in front of the server on ``port``, which ends TLS if told how."""
    proxy = Proxy(port, tls)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        await proxy.close()
