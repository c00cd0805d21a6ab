"""Tour 9: Redis holds only the work in flight. Wipe it, and the work is dealt again."""

from __future__ import annotations

import asyncio

import redis.asyncio
from aiohttp import web

from imgsvc.embedded.servers import EmbeddedServers
from tests.support import Origin, Service, wait_until


async def test_redis_is_wiped_in_the_middle_and_nothing_is_lost(
    service: Service, servers: EmbeddedServers, origin: Origin
) -> None:
    release = asyncio.Event()

    async def held(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response(body=origin.photo("coffee.png"))

    urls = [origin.add(f"held-{i}.png", held) for i in range(4)]
    request_id = await service.upload([[origin.url("rocket.jpg"), *urls]])

    async def under_way() -> bool:
        return len(origin.asked) == 5

    await wait_until(under_way, "all five images are being fetched")
    async with redis.asyncio.Redis(port=servers.endpoints.redis_port) as client:
        await client.flushall()
    release.set()

    status = await service.finished(request_id)
    assert status["status"] == "COMPLETED"
    assert (status["processedImages"], status["failedImages"]) == (5, 0)
