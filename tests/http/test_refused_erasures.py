"""What the bucket does not let go keeps no other erasure waiting, is seen, and goes when it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from imgsvc.embedded.servers import EmbeddedServers
from tests.integration.test_dead_letters import imgsvc
from tests.support import Origin, Server, Service, wait_until

PROMPTLY_S = 10.0
HELD = "is under active Event-Based hold and cannot be deleted, overwritten or archived"


class Holding(Server):
    """A bucket whose owner put holds on objects: as Google, it answers 403 to their deletion."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._bucket = f"http://127.0.0.1:{port}"
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self.held: set[str] = set()  # what the names of objects contain

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "DELETE":
            name = URL(request.raw_path).path.partition("/o/")[2]
            if any(held in name for held in self.held):
                said = {"reason": "objectUnderActiveHold", "message": f"Object '{name}' {HELD}."}
                error = {"code": 403, "message": said["message"], "errors": [said]}
                return web.json_response({"error": error}, status=403)
        body = await request.read()
        url = URL(self._bucket + request.raw_path, encoded=True)
        headers = {k: v for k, v in request.headers.items() if k in ("Content-Type", "X-Upload")}
        async with self._session.request(
            request.method, url, data=body, headers=headers
        ) as response:
            kept = {"Content-Type": response.headers.get("Content-Type", "text/plain")}
            return web.Response(status=response.status, body=await response.read(), headers=kept)

    async def close(self) -> None:
        await self._session.close()


@pytest.fixture
async def holding(servers: EmbeddedServers) -> AsyncIterator[Holding]:
    async with Holding(servers.gcs.port) as running:
        yield running
        await running.close()


@pytest.fixture
async def service(
    start_service: Callable[..., Awaitable[Service]], make_settings: Any, holding: Holding
) -> Service:
    settings = make_settings(redis={"heartbeat_s": 2, "reconcile_s": 1})
    gcs = settings.gcs.model_copy(update={"emulator_host": holding.base})
    return await start_service(settings.model_copy(update={"gcs": gcs}))


async def finished(service: Service, products: list[list[str]]) -> str:
    request_id = await service.upload(products)
    assert (await service.finished(request_id))["status"] == "COMPLETED"
    return request_id


async def is_erased(service: Service, request_id: str) -> bool:
    status, answer = await service.delete(f"/api/requests/{request_id}")
    assert status == 202
    return bool(answer["erased"])


async def refused(service: Service) -> int:
    """What the metric says."""
    async with service.session.get(f"{service.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    [line] = [line for line in lines if line.startswith("imgsvc_erasures_refused ")]
    return int(float(line.split()[1]))


async def test_ten_that_are_held_keep_no_eleventh_waiting(
    service: Service, origin: Origin, holding: Holding
) -> None:
    held = [await finished(service, [[origin.url("rocket.jpg")]]) for _ in range(10)]
    free = await finished(service, [[origin.url("rocket.jpg")]])
    holding.held = set(held)
    for request_id in held:
        assert not await is_erased(service, request_id)

    async def all_refused() -> bool:
        return await refused(service) == 10

    await wait_until(all_refused, "all ten are counted")
    assert not await is_erased(service, free)

    async def gone() -> bool:
        return await is_erased(service, free)

    await wait_until(gone, "the eleventh is erased", PROMPTLY_S)
    assert not any([await is_erased(service, request_id) for request_id in held])
    listing = await imgsvc(service, "dead", "list")
    for request_id in held:
        assert request_id in listing
    assert listing.count("403 objectUnderActiveHold") == 10
    assert free not in listing
    shown = await imgsvc(service, "dead", "show", held[0])
    assert f'"id": "{held[0]}"' in shown
    assert HELD in shown
    assert "lift what holds" in await imgsvc(service, "dead", "drop", held[0])

    holding.held.clear()
    said = await imgsvc(service, "dead", "replay", held[0])
    assert said == "0: " or await is_erased(service, held[0]), "it may go before the command does"
    for request_id in held:

        async def went(request_id: str = request_id) -> bool:
            return await is_erased(service, request_id)

        await wait_until(went, "it went when the hold was lifted", 60)
        assert await service.objects(request_id) == []
    assert "There are none." in await imgsvc(service, "dead", "list")

    async def none_refused() -> bool:
        return await refused(service) == 0

    await wait_until(none_refused, "none is counted any more")


async def test_of_one_request_only_what_is_held_stays(
    service: Service, origin: Origin, holding: Holding
) -> None:
    pictures = [origin.url("rocket.jpg"), origin.url("coffee.png"), origin.url("chelsea.png")]
    request_id = await finished(service, [pictures])
    first, *_ = sorted(await service.objects(request_id))
    holding.held = {first}
    await is_erased(service, request_id)

    async def only_that() -> bool:
        return await service.objects(request_id) == [first]

    await wait_until(only_that, "the others are gone")
    listing = await imgsvc(service, "dead", "list")
    assert "keeps 1 of" in listing
    assert (await service.get(f"/status/{request_id}"))[0] == 410


async def test_a_held_leftover_of_a_cancelled_request_is_told_too(
    start_service: Callable[..., Awaitable[Service]],
    make_settings: Any,
    origin: Origin,
    holding: Holding,
) -> None:
    """An object that was stored while its request was cancelled goes, and if it may not, is seen."""
    settings = make_settings(gcs={"timeout_s": 0.5, "retry_s": 0.5})
    gcs = settings.gcs.model_copy(update={"emulator_host": holding.base})
    service = await start_service(settings.model_copy(update={"gcs": gcs}))
    gate = asyncio.Event()

    async def late(_: web.Request) -> web.Response:
        await gate.wait()
        return web.Response(body=origin.photo("rocket.jpg"))

    request_id = await service.upload([[origin.add("late.jpg", late)]])
    name = f"{request_id}/0-0.jpg"
    await service.post(f"/api/requests/{request_id}/cancel")
    await service.finished(request_id)
    holding.held = {name}
    url = f"{gcs.emulator_host}/upload/storage/v1/b/{gcs.bucket}/o"
    query = {"uploadType": "media", "name": name}
    async with service.session.post(url, params=query, data=b"left") as response:
        assert response.status == 200, await response.text()

    async def listed() -> bool:
        return request_id in await imgsvc(service, "dead", "list")

    await wait_until(listed, "the leftover is told")
    holding.held.clear()

    async def swept() -> bool:
        return await service.objects(request_id) == []

    await wait_until(swept, "the leftover is gone")
    gate.set()
