"""Tour 8: start more replicas and they share the work; stop one and the others go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

from tests.photos import photo_names
from tests.support import Origin, wait_until


async def test_two_replicas_share_a_request(start_service: Any, origin: Origin) -> None:
    one = await start_service(redis={"window": 4}, fetch={"concurrency": 2})
    two = await start_service(redis={"window": 4}, fetch={"concurrency": 2})
    names = photo_names()[:16]
    met = asyncio.Event()

    async def after_four_met(request: web.Request) -> web.Response:
        """No replica fetches more than two at once: four at once are two of each."""
        if len(origin.asked) >= 4:
            met.set()
        await met.wait()
        return web.Response(body=origin.photo(request.path.removeprefix("/")))

    for name in names:
        origin.add(name, after_four_met)
    request_id = await one.upload([[origin.url(name) for name in names[i::4]] for i in range(4)])

    # Any replica tells the same.
    assert (await two.finished(request_id))["status"] == "COMPLETED"
    assert (await one.images(request_id)) == (await two.images(request_id))

    # Each image was fetched once, and each replica had its part.
    assert set(Counter(origin.asked).values()) == {1}
    done: list[int] = []

    async def counted() -> bool:
        done[:] = [await uploaded(service) for service in (one, two)]
        return sum(done) == 16

    await wait_until(counted, "all images are counted, which is so a moment after they ended")
    assert min(done) >= 2


async def test_a_replica_that_leaves_hands_its_work_over(
    start_service: Any, origin: Origin
) -> None:
    leaving = await start_service()
    staying = await start_service()
    names = photo_names()[:12]
    request_id = await staying.upload([[origin.url(name)] for name in names])
    await leaving.stop()
    status = await staying.finished(request_id)
    assert (status["status"], status["processedImages"]) == ("COMPLETED", 12)


async def uploaded(service: Any) -> int:
    """Images that one replica stored, by its own metrics."""
    async with service.session.get(f"{service.url}/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith('imgsvc_images_total{code="",status="COMPLETED"}'):
                return int(float(line.split()[-1]))
    return 0
