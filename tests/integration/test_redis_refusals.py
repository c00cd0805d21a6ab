"""While Redis refuses, of whatever kind and reason, nothing gives up; afterwards all is done."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from imgsvc.embedded.server import Server
from imgsvc.runtime.settings import Settings
from tests.conftest import left_in_redis
from tests.redis_faults import REFUSALS, SLOW_TO_LOAD, loading
from tests.redis_servers import PROGRAMS, running
from tests.support import Origin, Receiver, Service, wait_until


@pytest.fixture(params=PROGRAMS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """The newest and the oldest Redis, without anything in it."""
    async with running(request.param, tmp_path / "redis", *SLOW_TO_LOAD, "--save", "") as made:
        yield made


@contextlib.asynccontextmanager
async def admin_of(server: Server) -> AsyncIterator[Redis]:
    retry = Retry(ConstantBackoff(0.1), 100)
    async with Redis(port=server.port, decode_responses=True, retry=retry) as admin:
        yield admin


def on(settings: Settings, server: Server) -> Settings:
    redis = settings.redis.model_copy(update={"port": server.port})
    return settings.model_copy(update={"redis": redis})


async def redis_check(service: Service) -> str:
    with contextlib.suppress(OSError, TimeoutError):
        _, answer = await service.get("/readyz")
        return str(answer["checks"]["redis"])
    return ""


async def crashes(service: Service) -> float:
    async with service.session.get(f"{service.url}/metrics") as response:
        text = await response.text()
    found = re.findall(r"imgsvc_actor_restarts_total\{.*\} (\S+)", text)
    return sum(map(float, found))


async def test_what_redis_refuses_for_a_while_is_done_afterwards(
    server: Server,
    make_settings: Callable[..., Settings],
    start_service: Any,
    origin: Origin,
    receiver: Receiver,
) -> None:
    async with admin_of(server) as admin:
        service: Service = await start_service(
            on(make_settings(ratelimit={"enabled": True}, redis={"window": 4}), server)
        )
        harms = {code: lambda harm=harm: harm(admin) for code, harm in REFUSALS.items()}
        harms["LOADING"] = lambda: loading(admin, server)
        number = 0

        async def post() -> str | None:
            nonlocal number
            number += 1
            urls = [f"{origin.url('coins.png')}?{number}.{n}" for n in range(6)]
            product = {"serialNumber": "1", "productName": "A", "inputUrls": urls}
            status, answer = await service.post(
                "/api/upload", json={"products": [product], "webhookUrl": receiver.url}
            )
            assert status in {202, 503}, answer
            return str(answer["requestId"]) if status == 202 else None

        for code, harm in harms.items():
            posted = [await post()]  # its images are at every stage when it begins
            async with harm():

                async def refused(code: str = code) -> bool:
                    return code.partition(",")[0] in await redis_check(service)

                await wait_until(refused, f"/readyz tells of {code}", within_s=10)
                posted.append(await post())

            async def well() -> bool:
                return await redis_check(service) == "ok"

            await wait_until(well, f"{code} is over")
            for request_id in posted:
                assert request_id, "the ledger took it, so it is accepted"
                found = await service.announced(request_id, within_s=30)
                assert (code, found["status"]) == (code, "COMPLETED")
                assert found["webhook"]["status"] == "DELIVERED"
            assert (code, await crashes(service)) == (code, 0)
        await service.stop()
        assert await asyncio.to_thread(left_in_redis, server.port) == {}
