"""An origin that sends exactly the bytes that a test has written down, and keeps those it was sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self


def whole(body: bytes, *, head: bytes = b"") -> bytes:
    """A good answer with this body; ``head`` are more header lines, each with its end."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), head, body)


class RawOrigin:
    """Answers each request with the bytes for its target, or those for ``*``.

    A list of answers is sent with a packet for each. The connection stays open unless the head or
    ``closes`` says otherwise.
    """

    def __init__(
        self, answers: Mapping[str, bytes | Sequence[bytes]], *, closes: bool = False
    ) -> None:
        self._answers = answers
        self._closes = closes
        self._stop = asyncio.Event()
        self.heads: list[bytes] = []
        self.connections = 0
        self.base = ""

    @property
    def targets(self) -> list[str]:
        """What was asked for, as it stood in the request line."""
        return [head.split(b" ", 2)[1].decode("ascii") for head in self.heads]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.base = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        serving = asyncio.ensure_future(self._answer_all(reader, writer))
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            stopped.cancel()
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.partition(b":")[2]))
            self.heads.append(head)
            answer = self._answers.get(self.targets[-1]) or self._answers["*"]
            with contextlib.suppress(ConnectionError):
                for packet in [answer] if isinstance(answer, bytes) else answer:
                    writer.write(packet)
                    await writer.drain()
                    await asyncio.sleep(0.005)  # so that it is a packet of its own
            if self._closes:
                return
