"""What actors do with messages that they cannot do anything with, and how many they take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from typing import Any

import pytest
from aiohttp import web
from PIL import Image
from redis.asyncio import Redis

from imgsvc.actors import Fetcher, Uploader
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import VERSION, ImageJob
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.keys import DEAD, FETCH, FETCH_PRIORITY, GROUP, IN_FLIGHT, WAKE
from imgsvc.mailboxes.streams import Streams
from imgsvc.runtime.settings import Settings
from tests.photos import photo
from tests.support import Origin, Receiver, Service, wait_until


@pytest.fixture
async def redis(make_settings: Callable[..., Settings]) -> AsyncIterator[Redis]:
    """The servers' Redis, empty afterwards."""
    async with connect(make_settings().redis) as client:
        yield client
        await client.flushdb()


async def test_a_message_of_another_version_is_left_for_who_understands_it(
    redis: Redis, start_service: Any, origin: Origin
) -> None:
    service: Service = await start_service()
    written = ImageJob(request_id="of-tomorrow", product=0, index=0).model_dump_json()
    fields = {"k": "of-tomorrow/0/0", "m": written.replace(f'"v":{VERSION}', f'"v":{VERSION + 1}')}
    await redis.xadd(FETCH, {**fields, "n": "0"})  # type: ignore[dict-item]

    async def taken() -> bool:
        return bool((await redis.xpending(FETCH, GROUP))["pending"])

    await wait_until(taken, "the replica has it")
    request_id = await service.upload([[origin.url("rocket.jpg")]])
    assert (await service.finished(request_id))["status"] == "COMPLETED"
    await service.stop()
    [(_, left)] = await redis.xrange(FETCH)
    assert left == {**fields, "n": "0"}, "nothing is charged, nothing is lost"
    assert not await taken()
    assert not await redis.exists(DEAD)


async def test_what_fails_time_and_again_is_buried_with_its_reason(
    redis: Redis, start_service: Any, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    handle = Fetcher.handle

    async def broken(self: Fetcher, job: ImageJob, facts: Any) -> Any:
        if job.product == 0:
            runs.append(job.key)
            raise RuntimeError("a mistake of ours")
        return await handle(self, job, facts)

    monkeypatch.setattr(Fetcher, "handle", broken)
    service: Service = await start_service(redis={"max_deliveries": 2})
    request_id = await service.upload([[origin.url("rocket.jpg")], [origin.url("coins.png")]])
    assert (await service.finished(request_id))["status"] == "PARTIAL"
    _, page = await service.get(f"/api/requests/{request_id}/images")
    assert [image["status"] for image in page["images"]] == ["FAILED", "COMPLETED"]
    assert page["images"][0]["error"]["code"] == "INTERNAL"
    assert "mistake" not in page["images"][0]["error"]["detail"]
    assert len(runs) == 2

    async def buried() -> bool:
        return bool(await redis.xlen(DEAD))

    await wait_until(buried, "it is in the dead mailbox")
    [(_, letter)] = await redis.xrange(DEAD)
    assert letter["reason"] == "RuntimeError: a mistake of ours"
    await service.stop()


async def test_a_replica_takes_as_many_as_it_has_room_for(
    redis: Redis, start_service: Any, origin: Origin
) -> None:
    service: Service = await start_service(fetch={"concurrency": 2}, redis={"window": 6})
    opened, arrived = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> Any:
        arrived.set()
        await opened.wait()
        raise ConnectionResetError

    names = [origin.add(f"slow-{number}.jpg", slow) for number in range(8)]
    await service.upload([[name] for name in names])
    await arrived.wait()

    async def all_dealt() -> bool:
        return (await redis.xpending(FETCH, GROUP))["pending"] == 6

    await wait_until(all_dealt, "the others wait in hand, a window of them at most")
    assert await redis.xlen(FETCH) == 6
    assert len(origin.asked) == 2
    opened.set()
    await service.stop()


async def test_while_the_bucket_is_away_few_images_are_fetched(
    servers: EmbeddedServers, redis: Redis, start_service: Any, origin: Origin
) -> None:
    service: Service = await start_service(fetch={"ahead": 4, "concurrency": 4})
    most = service.settings.gcs.in_hand + 4 + 2 * 4 + service.settings.codec.worker_count
    small = BytesIO()
    Image.new("RGB", (16, 16), "teal").save(small, "PNG")
    url = origin.add("small.png", small.getvalue())
    servers.gcs.kill()
    try:
        request_id = await service.upload([[f"{url}?{n}"] for n in range(2 * most)])
        asked = -1
        while asked < len(origin.asked):
            asked = len(origin.asked)
            await asyncio.sleep(2)
        assert asked <= most
    finally:
        await servers.gcs.start()
    await service.post(f"/api/requests/{request_id}/cancel")
    await service.finished(request_id)

    async def empty() -> bool:
        return not await redis.xlen(FETCH)

    await wait_until(empty, "what is still in the mailbox is found cancelled")
    await service.stop()


async def test_an_image_whose_message_was_lost_is_dealt_again_when_its_mark_is_doubted(
    redis: Redis, start_service: Any, origin: Origin
) -> None:
    service: Service = await start_service(redis={"lease_s": 3, "heartbeat_s": 2})
    opened = asyncio.Event()

    async def held(_: Any) -> web.Response:
        await opened.wait()
        return web.Response(body=photo("coins.png"))

    url = origin.add("held.png", held)
    request_id = await service.upload([[url]])

    async def asked() -> bool:
        return bool(origin.asked)

    await wait_until(asked, "it is being fetched")
    for mailbox in (FETCH, FETCH_PRIORITY):
        for entry_id, _ in await redis.xrange(mailbox):
            await redis.xack(mailbox, GROUP, entry_id)
            await redis.xdel(mailbox, entry_id)
    assert await redis.zcard(IN_FLIGHT) == 1, "only the mark is left"
    opened.set()
    assert (await service.finished(request_id))["status"] == "COMPLETED"
    assert origin.asked == ["held.png", "held.png"]
    await service.stop()


@pytest.mark.parametrize(
    "place", [(Streams, "hand_off"), (Uploader, "handle"), (Uploader, "_apply")]
)
@pytest.mark.parametrize("error", [RuntimeError("a mistake"), ServiceError(ErrorCode.NOT_FOUND)])
async def test_no_exception_loses_a_message(  # noqa: PLR0917 - what it tries
    redis: Redis,
    start_service: Any,
    origin: Origin,
    place: tuple[type, str],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = getattr(*place)
    raised: list[Exception] = []

    async def failing(*args: Any, **options: Any) -> Any:
        if not raised:
            raised.append(error)
            raise error
        return await method(*args, **options)

    monkeypatch.setattr(*place, failing)
    service: Service = await start_service()
    request_id = await service.upload([[origin.url("coins.png")]])
    assert (await service.finished(request_id))["status"] == "COMPLETED"

    async def settled() -> bool:
        return bool(raised) and not await redis.zcard(IN_FLIGHT)

    await wait_until(settled, "its message is gone")
    await service.stop()


async def test_what_the_ledger_has_is_accepted_though_the_dealer_cannot_be_told(
    redis: Redis, start_service: Any, origin: Origin, receiver: Receiver
) -> None:
    service: Service = await start_service()
    failed = await service.upload([[origin.url("none.jpg")]], webhookUrl=receiver.url)
    others = [await service.upload([[origin.url("none.jpg")]]) for _ in range(2)]
    await service.announced(failed)
    for request_id in others:
        await service.finished(request_id)
    opened = asyncio.Event()

    async def held(_: Any) -> web.Response:
        await opened.wait()
        return web.Response(status=404)

    await redis.delete(WAKE)
    await redis.set(WAKE, "not a list")  # a refusal that is no passing one
    try:
        new = await service.upload([[origin.add("held.png", held)]])
        calls = [
            service.post(f"/api/requests/{failed}/deliveries/replay"),
            service.post(f"/api/requests/{others[0]}/retry"),
            service.post(f"/api/requests/{new}/cancel"),
            service.delete(f"/api/requests/{others[1]}"),
        ]
        assert [(await call)[0] for call in calls] == [202] * 4
    finally:
        await redis.delete(WAKE)
    assert (await service.finished(others[0]))["status"] == "FAILED"
    opened.set()
    assert (await service.finished(new))["status"] == "CANCELLED"
    assert (await service.announced(failed))["webhook"]["status"] == "DELIVERED"
    await service.stop()
