"""The dealer keeps little in Redis, and is fair to all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio
from aiohttp import web

from imgsvc.mailboxes.keys import FETCH, IN_FLIGHT, delayed
from tests.support import Origin, Service, wait_until

WINDOW = 4


async def test_however_many_wait_for_their_origin_few_are_in_redis_and_others_go_on(
    start_service: Callable[..., Awaitable[Service]], origin: Origin, neighbour: Origin
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
        other = await service.upload([[neighbour.url("rocket.jpg")]])
        assert (await service.finished(other))["status"] == "COMPLETED"
        await asyncio.sleep(1)  # in which all of them could be dealt
        assert await client.zcard(delayed(FETCH)) <= 5 * WINDOW
        assert await client.zcard(IN_FLIGHT) <= 5 * WINDOW
        await service.stop()
        await client.flushdb()  # the rest would wait for a minute


async def slow(_: web.Request) -> web.Response:
    """Takes a while to say that nothing is there."""
    await asyncio.sleep(0.05)
    return web.Response(status=404)


async def stopped(service: Service, requests: list[str]) -> int:
    """Cancel requests; how many of their images had ended before."""
    found = [(await service.get(f"/status/{each}"))[1]["processedImages"] for each in requests]
    for each in requests:
        await service.post(f"/api/requests/{each}/cancel")
    settings = service.settings.redis
    async with redis.asyncio.Redis(port=settings.port, db=settings.db) as client:

        async def empty() -> bool:
            return not await client.xlen(FETCH)

        await wait_until(empty, "what is still in the mailbox is found cancelled")
    return sum(found)


async def test_a_request_gets_its_turn_however_many_are_being_worked_on(
    start_service: Callable[..., Awaitable[Service]], origin: Origin
) -> None:
    service = await start_service(redis={"window": WINDOW}, fetch={"concurrency": 2})
    url = origin.add("slow.jpg", slow)
    many = [await service.upload([[f"{url}?{n}"] for n in range(20)]) for _ in range(10)]
    one = await service.upload([[origin.url("coffee.png")]])
    await service.finished(one)
    assert await stopped(service, many) < 100


@pytest.mark.parametrize("retried", [False, True])
async def test_a_tenant_gets_their_turn_however_many_requests_another_has(
    start_service: Callable[..., Awaitable[Service]], origin: Origin, retried: bool
) -> None:
    service = await start_service(
        redis={"window": WINDOW}, fetch={"concurrency": 2}, http={"trusted_proxies": ["127.0.0.1"]}
    )
    service.session.headers["X-Forwarded-For"] = "203.0.113.1"
    url = origin.url("slow.jpg")
    if not retried:
        origin.add("slow.jpg", slow)
    many = [await service.upload([[f"{url}?{n}"] for n in range(12)]) for _ in range(10)]
    if retried:
        for each in many:
            await service.finished(each)
        origin.add("slow.jpg", slow)
        for each in many:
            assert (await service.post(f"/api/requests/{each}/retry"))[0] == 202
    service.session.headers["X-Forwarded-For"] = "203.0.113.2"
    few = await service.upload([[f"{url}?{n}"] for n in range(10)])
    await service.finished(few)
    # From now on every other image is theirs, but for those that were dealt ahead.
    assert await stopped(service, many) < 60


async def test_one_image_goes_past_those_that_were_dealt_before_it(
    start_service: Callable[..., Awaitable[Service]], origin: Origin
) -> None:
    service = await start_service(redis={"window": 32}, fetch={"concurrency": 1})
    url = origin.add("slow.jpg", slow)
    many = await service.upload([[f"{url}?{n}"] for n in range(200)])

    async def in_hand() -> bool:
        return len(origin.asked) >= 2

    await wait_until(in_hand, "some are being fetched")
    before = len(origin.asked)
    one = await service.upload([[origin.url("rocket.jpg")]])
    await service.finished(one)
    assert origin.asked.index("rocket.jpg") - before < 16  # in line it would come after 31
    await stopped(service, [many])


async def test_a_mailbox_full_of_a_large_request_has_room_for_one_image(
    start_service: Callable[..., Awaitable[Service]], origin: Origin
) -> None:
    service = await start_service(redis={"window": WINDOW})
    opened = asyncio.Event()

    async def held(_: web.Request) -> web.Response:
        await opened.wait()
        return web.Response(status=404)

    url = origin.add("held.jpg", held)
    many = await service.upload([[f"{url}?{n}"] for n in range(20)])

    async def full() -> bool:
        return len(origin.asked) == WINDOW

    await wait_until(full, "all that the mailbox has room for are being fetched")
    one = await service.upload([[origin.url("rocket.jpg")]])
    assert (await service.finished(one))["status"] == "COMPLETED"
    assert len(origin.asked) == WINDOW + 1
    opened.set()
    await stopped(service, [many])


async def test_small_requests_go_on_however_slow_the_images_of_a_large_one_are(
    start_service: Callable[..., Awaitable[Service]], origin: Origin, neighbour: Origin
) -> None:
    """Not one of the slow ones ends meanwhile, and they have all the places that are theirs."""
    service = await start_service(
        fetch={"per_host": 100, "silence_s": 60, "total_s": 60},
        http={"trusted_proxies": ["127.0.0.1"]},
    )
    opened = asyncio.Event()

    async def held(_: web.Request) -> web.Response:
        await opened.wait()
        return web.Response(status=404)

    url = origin.add("held.jpg", held)
    many = await service.upload([[f"{url}?{n}"] for n in range(200)])

    async def full() -> bool:
        return len(origin.asked) == service.settings.fetch.concurrency

    await wait_until(full, "as many as may be are being fetched")
    service.session.headers["X-Forwarded-For"] = "203.0.113.2"
    for n in range(10):
        one = await service.upload([[f"{neighbour.url('rocket.jpg')}?{n}"]])
        assert (await service.finished(one))["status"] == "COMPLETED"
    assert len(origin.asked) == service.settings.fetch.concurrency
    opened.set()
    await stopped(service, [many])


async def test_small_requests_have_the_places_of_all_others_too(
    start_service: Callable[..., Awaitable[Service]], origin: Origin
) -> None:
    service = await start_service(
        redis={"window": 8}, fetch={"per_host": 100, "silence_s": 60, "total_s": 60}
    )
    opened = asyncio.Event()

    async def held(_: web.Request) -> web.Response:
        await opened.wait()
        return web.Response(status=404)

    url = origin.add("held.jpg", held)
    small = [await service.upload([[f"{url}?{n}"]]) for n in range(30)]

    async def full() -> bool:
        return len(origin.asked) == 8 + service.settings.redis.priority_window

    await wait_until(full, "as many as the mailboxes have room for are being fetched")
    opened.set()
    for each in small:
        await service.finished(each)
