"""Tour 7: progress can be watched while the work is done."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tests.support import Origin, Service, wait_until


async def test_progress_can_be_watched(service: Service, origin: Origin) -> None:
    release = asyncio.Event()

    async def held(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response(body=origin.photo("coffee.png"))

    request_id = await service.upload([[origin.url("rocket.jpg")], [origin.add("held.png", held)]])

    async def one_done() -> bool:
        _, status = await service.get(f"/status/{request_id}")
        return (status["status"], status["processedImages"]) == ("PROCESSING", 1)

    await wait_until(one_done, "one of two images is done")
    _, status = await service.get(f"/status/{request_id}")
    assert (status["processedProducts"], status["totalProducts"]) == (1, 2)
    assert status["bytesOut"] > 0

    release.set()
    assert (await service.finished(request_id))["processedImages"] == 2
