"""/readyz asks each server once, however many ask it, and also while a server is down or hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from imgsvc import app
from imgsvc.runtime.settings import Settings
from tests.support import Server, Service, wait_until


class Front(Server):
    """Stands before the real bucket: passes calls on, refuses them or lets them hang."""

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self._bucket = bucket
        self.mode = "refuse"
        self.released = asyncio.Event()
        self.checks = 0

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and request.path.endswith("/o"):
            self.checks += 1  # a check lists objects
        if self.mode == "refuse":
            return web.Response(status=503)
        if self.mode == "hang":
            await self.released.wait()
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method,
                f"{self._bucket}{request.path_qs}",
                data=await request.read(),
                headers={"Content-Type": request.content_type},
            ) as response,
        ):
            body = await response.read()
            return web.Response(
                status=response.status, body=body, content_type=response.content_type
            )


@pytest.fixture
async def front(make_settings: Callable[..., Settings]) -> AsyncIterator[Front]:
    async with Front(str(make_settings().gcs.emulator_host)) as running:
        yield running
        running.released.set()


@pytest.fixture
async def service(make_settings: Callable[..., Settings], front: Front) -> AsyncIterator[Service]:
    """A service that has not been ready yet, for its bucket is behind the front."""
    made = make_settings()
    gcs = made.gcs.model_copy(update={"emulator_host": front.base})
    settings = made.model_copy(update={"gcs": gcs})
    stop = asyncio.Event()
    task = asyncio.create_task(app.serve(settings, stop))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        running = Service(settings, session, task, stop)

        async def answers() -> bool:
            try:
                return (await running.get("/healthz"))[0] == 200
            except aiohttp.ClientError:
                return False

        await wait_until(answers, "the service answers")
        yield running
        front.mode = "pass on"
        front.released.set()
        await running.stop()


async def asked(service: Service, times: int = 50) -> set[tuple[int, str]]:
    """What so many calls at the same moment are told of the bucket."""
    told: list[tuple[int, Any]] = await asyncio.gather(
        *(service.get("/readyz") for _ in range(times))
    )
    return {(status, answer["checks"]["bucket"]) for status, answer in told}


async def test_a_bucket_that_is_down_is_asked_once_by_all(service: Service, front: Front) -> None:
    begun = time.monotonic()
    [(status, said)] = await asked(service)
    assert status == 503
    assert said != "ok"
    for _ in range(20):
        await asked(service, 1)
    # The failure is remembered for two seconds.
    assert 1 <= front.checks <= 1 + (time.monotonic() - begun) / 2
    front.mode = "pass on"
    await wait_until(service.is_ready, "the service is ready")


async def test_a_bucket_that_hangs_is_asked_once_and_nobody_waits_for_long(
    service: Service, front: Front
) -> None:
    front.mode = "hang"
    begun = time.monotonic()

    async def hangs() -> bool:
        return (503, "no answer within 4 s") in await asked(service)

    await wait_until(hangs, "the check has hung for so long")  # before, the refusal was remembered
    await asked(service)
    # Each check ends by itself after five seconds, and its failure holds for two.
    assert front.checks <= 2 + (time.monotonic() - begun) / 7
    front.mode = "pass on"
    front.released.set()
    await wait_until(service.is_ready, "the service is ready")


async def test_a_bucket_that_is_well_is_asked_once_by_all(service: Service, front: Front) -> None:
    front.mode = "pass on"
    await wait_until(service.is_ready, "the service is ready")
    before = front.checks
    assert await asked(service) == {(200, "ok")}
    assert front.checks == before
