"""Where the photographs come from: ``python origin.py PORT FOLDER...`` serves their files.

As cheap as can be, for it runs on the cores that are measured: files in memory, one answer
prepared for each. A path is ``/<folder>/<file>``; what follows a ``?`` makes URLs different.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import uvloop

_END = b"\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self._answers = answers
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while _END in self._received:
            request, _, self._received = self._received.partition(_END)
            path = request.split(b" ", 2)[1].partition(b"?")[0]
            self._transport.write(self._answers.get(path) or _answer("404 Not Found", b""))


def _answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}"
    return head.encode() + _END + body


async def _serve(port: int, folders: list[Path]) -> None:
    answers = {
        f"/{folder.name}/{file.name}".encode(): _answer("200 OK", file.read_bytes())
        for folder in folders
        for file in folder.iterdir()
    }
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(answers), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]]))
