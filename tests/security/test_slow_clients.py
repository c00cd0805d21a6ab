"""Clients that take their time: cut off, while others are served."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from tests.support import Service

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = (
    b"POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n"
)


@contextlib.asynccontextmanager
async def connected(service: Service) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.settings.http.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def trickle(streams: Streams, data: Iterable[int]) -> tuple[float, bytes]:
    """Send a byte each 50 ms: seconds until the service had enough, and what it said."""
    reader, writer = streams
    started = time.monotonic()
    answering = asyncio.create_task(reader.read())
    for byte in data:
        with contextlib.suppress(ConnectionError):
            writer.write(bytes([byte]))
            await writer.drain()
        await asyncio.wait({answering}, timeout=0.05)
        if answering.done():
            break
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            return time.monotonic() - started, await answering
    return time.monotonic() - started, b""


@pytest.fixture
async def service(start_service: Any) -> Service:
    made: Service = await start_service(
        http={"header_timeout_s": 1, "body_timeout_s": 1, "keepalive_s": 2}
    )
    return made


async def test_a_head_that_trickles_is_cut_off(service: Service) -> None:
    async with connected(service) as streams:
        took_s, said = await trickle(streams, GET * 20)
    assert said == b"", "the first head alone takes 2 s"
    assert 0.7 < took_s < 10


async def test_a_connection_that_says_nothing_is_closed(service: Service) -> None:
    async with connected(service) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_body_that_trickles_is_cut_off_with_a_reason(service: Service) -> None:
    async with connected(service) as (reader, writer):
        started = time.monotonic()
        writer.write(POST)
        answering = asyncio.create_task(reader.readuntil(b"\r\n"))
        while not answering.done():
            writer.write(b"{")
            await asyncio.wait({answering}, timeout=0.05)
        assert answering.result().startswith(b"HTTP/1.1 408 ")
        assert 0.7 < time.monotonic() - started < 10


async def test_a_second_head_that_trickles_is_cut_off_too(service: Service) -> None:
    async with connected(service) as streams:
        streams[1].write(GET)
        await streams[0].readuntil(b'{"status":"ok"}')
        took_s, said = await trickle(streams, b"GET /" + b"x" * 1000)
    assert said == b""
    assert took_s < 15


async def test_a_slow_answer_is_not_taken_for_a_slow_head(start_service: Any) -> None:
    """Nor a connection that has asked before and is idle now."""
    service: Service = await start_service(http={"header_timeout_s": 0.4, "body_timeout_s": 10})
    async with connected(service) as (reader, writer):
        for pause_s in (1.2, 1.2, 0):
            writer.write(GET)
            assert b"200 OK" in await reader.readuntil(b'{"status":"ok"}')
            await asyncio.sleep(pause_s)
        writer.write(POST + b"{")
        await asyncio.sleep(1.2)
        writer.write(b"}" * 999)
        assert b"400 Bad Request" in await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)


async def test_many_slow_clients_keep_nobody_else_out(service: Service) -> None:
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(service)) for _ in range(300)]
        for _, writer in slow:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: ")
        assert await service.get("/healthz") == (200, {"status": "ok"})
        gone = await asyncio.wait_for(
            asyncio.gather(*(reader.read() for reader, _ in slow), return_exceptions=True), 20
        )
        assert len(gone) == 300
        assert await service.get("/healthz") == (200, {"status": "ok"})
