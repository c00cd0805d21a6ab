"""The dealer keeps little in Redis, and is fair to all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import redis.asyncio
from aiohttp import web

from imgsvc.mailboxes import FETCH, IN_FLIGHT, delayed
from tests.support import Origin, Service, wait_until

WINDOW = 4


async def test_however_many_wait_for_their_origin_few_are_in_redis_and_others_go_on(
    start_service: Callable[..., Awaitable[Service]], origin: Origin
) -> None:
    service = await start_service(redis={"window": WINDOW}, http={"shutdown_s": 1})

    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "60"})

    await service.upload([[origin.add(f"busy-{n}.jpg", busy)] for n in range(120)])
    settings = service.settings.redis
    async with redis.asyncio.Redis(port=settings.port, db=settings.db) as client:

        async def waits() -> bool:
            return await client.zcard(delayed(FETCH)) >= 4 * WINDOW

        await wait_until(waits, "some wait for their origin")
        other = await service.upload([[origin.url("rocket.jpg")]])
        assert (await service.finished(other))["status"] == "COMPLETED"
        await asyncio.sleep(1)  # in which all of them could be dealt
        assert await client.zcard(delayed(FETCH)) <= 5 * WINDOW
        assert await client.zcard(IN_FLIGHT) <= 5 * WINDOW
        await service.stop()
        await client.flushdb()  # the rest would wait for a minute
