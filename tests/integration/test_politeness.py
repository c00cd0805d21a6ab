"""Origins: few connections from all replicas together, left alone when they ask for that or fail.

Meanwhile images of other origins go on, and nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
import redis.asyncio
from aiohttp import web
from yarl import URL

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.origins import OriginFailure, OriginStanding, OriginUse
from imgsvc.imaging.identify import sniff
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.keys import FETCH, delayed
from imgsvc.mailboxes.origins import Origins
from imgsvc.mailboxes.scripts import Scripts
from imgsvc.outbound.client import Outbound
from imgsvc.outbound.politeness import Politeness, PutOffError
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import Settings
from tests.conftest import free_port
from tests.photos import photo
from tests.support import Origin, Service, wait_until

Start = Callable[..., Awaitable[Service]]
PLACES = 3
SOON_S = 0.2
ORIGIN = "http://origin.example"
BUSY = OriginFailure(ErrorCode.FETCH_STATUS, asked_s=0, worked=False)
DOWN = OriginFailure(ErrorCode.CONNECT_FAILED, asked_s=None, worked=False)


class Crowd:
    """An origin's answer, and how many come for it at once."""

    def __init__(self, seconds: float = 0.05) -> None:
        self._seconds = seconds
        self._inside = 0
        self._connections: set[asyncio.BaseTransport] = set()
        self.most_inside = 0
        self.most_connections = 0

    def open(self) -> int:
        """How many connections are open on which something was asked."""
        self._connections = {each for each in self._connections if not each.is_closing()}
        return len(self._connections)

    async def answer(self, request: web.Request) -> web.Response:
        """A picture, after some time."""
        assert request.transport
        self._connections.add(request.transport)
        self.most_connections = max(self.most_connections, self.open())
        self._inside += 1
        self.most_inside = max(self.most_inside, self._inside)
        await asyncio.sleep(self._seconds)
        self._inside -= 1
        return web.Response(body=photo("rocket.jpg"))


def told(images: list[dict[str, Any]], origin: Origin) -> list[str]:
    """How the images of an origin ended."""
    return [
        (image["error"] or {}).get("code") or image["status"]
        for image in images
        if image["inputUrl"].startswith(origin.base)
    ]


@pytest.mark.parametrize("replicas", [1, 3])
async def test_an_origin_gets_so_many_connections_from_all_replicas_together(
    start_service: Start, origin: Origin, replicas: int
) -> None:
    services = [
        await start_service(fetch={"per_host": PLACES}, dedupe={"enabled": False})
        for _ in range(replicas)
    ]
    crowd = Crowd()
    request_id = await services[0].upload(
        [[origin.add(f"{n}.jpg", crowd.answer)] for n in range(60)]
    )
    assert (await services[0].finished(request_id))["processedImages"] == 60
    assert crowd.most_inside == PLACES
    assert crowd.most_connections <= PLACES
    assert len(origin.asked) == 60


async def test_who_goes_elsewhere_does_not_wait_for_a_slow_origin(
    start_service: Start, origin: Origin, neighbour: Origin
) -> None:
    service = await start_service(
        fetch={"per_host": 2, "concurrency": 4}, http={"shutdown_s": 1}, dedupe={"enabled": False}
    )
    crowd = Crowd(seconds=1.5)
    slow = [origin.add(f"{n}.jpg", crowd.answer) for n in range(8)]
    quick = [neighbour.add(f"{n}.jpg", photo("rocket.jpg")) for n in range(8)]
    request_id = await service.upload([[*slow, *quick]])

    async def quick_are_done() -> bool:
        return told(await service.images(request_id), neighbour) == ["COMPLETED"] * 8

    await wait_until(quick_are_done, "the neighbour's images are done")
    assert told(await service.images(request_id), origin).count("COMPLETED") < 8
    assert (await service.finished(request_id))["processedImages"] == 16
    assert crowd.most_inside == 2


async def test_an_origin_that_hung_gets_the_rest_of_a_batch_as_soon_as_it_answers(
    start_service: Start, origin: Origin
) -> None:
    """All who wait have asked for a place again and again: that must not make them wait longer."""
    service = await start_service(dedupe={"enabled": False}, fetch={"per_host": 8})
    released = asyncio.Event()

    async def hangs_at_first(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response(status=404)  # nothing to be done but to ask

    urls = [origin.add(f"{n}.jpg", hangs_at_first) for n in range(150)]
    request_id = await service.upload([urls[:75], urls[75:]])
    await asyncio.sleep(6)  # less than any time limit
    assert len(origin.asked) == 8
    released.set()
    started = time.monotonic()
    assert (await service.finished(request_id, 60))["failedImages"] == 150
    assert time.monotonic() - started < 20
    assert len(origin.asked) == 150


@pytest.mark.parametrize(("answer", "rest_s"), [((429, "3"), 3.0), ((503, ""), 3.0)])
async def test_an_origin_that_asks_for_it_is_left_alone_and_then_tried_by_one(
    start_service: Start, origin: Origin, neighbour: Origin, answer: tuple[int, str], rest_s: float
) -> None:
    service = await start_service(
        fetch={"rest_s": 1 if answer[1] else rest_s, "per_host": 2}, dedupe={"enabled": False}
    )
    status, after = answer
    asked: list[float] = []

    async def busy_at_first(_: web.Request) -> web.Response:
        asked.append(time.monotonic())
        if len(asked) <= 2:
            return web.Response(status=status, headers={"Retry-After": after})
        return web.Response(body=photo("rocket.jpg"))

    neighbour_asked: list[float] = []

    async def answers_at_once(_: web.Request) -> web.Response:
        neighbour_asked.append(time.monotonic())
        return web.Response(body=photo("rocket.jpg"))

    busy = [origin.add(f"{n}.jpg", busy_at_first) for n in range(20)]
    free = [neighbour.add(f"{n}.jpg", answers_at_once) for n in range(20)]
    request_id = await service.upload(
        [[url] for pair in zip(busy, free, strict=True) for url in pair]
    )
    assert (await service.finished(request_id, 60))["processedImages"] == 40
    assert told(await service.images(request_id), neighbour) == ["COMPLETED"] * 20
    assert max(neighbour_asked) < asked[2], "the neighbour was asked meanwhile"
    assert rest_s <= asked[2] - asked[1] < rest_s + 10
    assert len(asked) == 22, "none but the first were refused"


async def test_one_file_that_is_never_there_does_not_cost_its_neighbours_their_result(
    start_service: Start, origin: Origin
) -> None:
    service = await start_service(fetch={"rest_s": 0.1, "patience": 3}, dedupe={"enabled": False})
    tries = []

    async def never(_: web.Request) -> web.Response:
        tries.append(1)
        return web.Response(status=503)

    urls = [origin.add(f"{n}.jpg", photo("rocket.jpg")) for n in range(10)]
    request_id = await service.upload([[origin.add("never.jpg", never), *urls]])
    assert (await service.finished(request_id))["failedImages"] == 1
    assert told(await service.images(request_id), origin) == ["FETCH_STATUS", *["COMPLETED"] * 10]
    assert len(tries) == 3


async def test_an_origin_that_keeps_failing_is_given_up_and_forgiven(
    start_service: Start, origin: Origin
) -> None:
    """200 images at a door that is closed: few knocks, no long wait, and later it is open."""
    service = await start_service(
        fetch={"rest_s": 0.2, "longest_rest_s": 3, "rests": 2}, dedupe={"enabled": False}
    )
    port = free_port()
    knocks = 0

    def knock(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocks
        knocks += 1
        writer.transport.abort()

    async with await asyncio.start_server(knock, "127.0.0.1", port):
        dead = [f"http://127.0.0.1:{port}/{n}.jpg" for n in range(200)]
        request_id = await service.upload([dead[:100], dead[100:], [origin.url("rocket.jpg")]])
        status = await service.finished(request_id)
        assert (status["processedImages"], status["failedImages"]) == (201, 200)
        codes = {image["error"]["code"] for image in (await service.images(request_id))[:200]}
        assert codes == {"CONNECT_FAILED"}
        assert knocks < 40

    answer = web.AppRunner(web.Application())
    answer.app.router.add_get("/{name}", Crowd(0).answer)
    await answer.setup()
    await web.TCPSite(answer, "127.0.0.1", port).start()
    try:

        async def works_again() -> bool:
            again = await service.upload([[f"http://127.0.0.1:{port}/again.jpg"]])
            return bool((await service.finished(again))["status"] == "COMPLETED")

        await wait_until(works_again, "it is tried again and works")
    finally:
        await answer.cleanup()


async def test_what_is_put_off_survives_in_redis_and_others_take_it(
    start_service: Start, origin: Origin
) -> None:
    leaving = await start_service(fetch={"rest_s": 2})
    answers = iter([503])

    async def busy_once(_: web.Request) -> web.Response:
        status = next(answers, 200)
        return web.Response(status=status, body=photo("rocket.jpg") if status == 200 else None)

    request_id = await leaving.upload([[origin.add("busy.jpg", busy_once)]])
    client = connect(leaving.settings.redis)

    async def waits() -> bool:
        return bool(await client.zcard(delayed(FETCH)))

    await wait_until(waits, "it waits")
    await client.aclose()
    await leaving.stop()
    staying = await start_service(leaving.settings)
    assert (await staying.finished(request_id))["status"] == "COMPLETED"


# How replicas share, by the scripts alone


@pytest.fixture
async def replica(make_settings: Callable[..., Settings]) -> AsyncIterator[Callable[..., Origins]]:
    """Makes the origins of one replica after another."""
    made = make_settings(fetch={"per_host": 8, "failures": 3, "rest_s": 0.2, "rests": 2})
    client = connect(made.redis)

    def make(name: str) -> Origins:
        return Origins(Scripts(client), name, made.fetch)

    yield make
    await client.flushdb()
    await client.aclose()


async def share_of(
    origins: Origins, open_: int | None = 0, *, worked: bool = False, wants: bool = True
) -> int:
    found = await origins.share({ORIGIN: OriginUse(open_, worked, wants)})
    return found[ORIGIN].connections


async def test_who_comes_later_gets_a_fair_share_once_it_is_free(
    replica: Callable[..., Origins],
) -> None:
    one, two, three = (replica(name) for name in "abc")
    assert await share_of(one) == 8
    assert await share_of(two) == 0, "all are taken"
    assert await share_of(one, 8) == 4, "no more than this from now on"
    assert await share_of(two) == 0, "but those that are open are taken still"
    assert await share_of(one, 5) == 4
    assert await share_of(two) == 3
    assert await share_of(one, 4) == 4
    assert await share_of(two, 3) == 4
    await share_of(three)
    await share_of(one, None)
    assert await share_of(two, 4) == 4
    assert await share_of(three) == 4


async def test_failures_of_all_replicas_in_a_row_count_and_success_forgives(
    replica: Callable[..., Origins],
) -> None:
    one, two = replica("a"), replica("b")
    await one.blame(ORIGIN, DOWN)
    await two.blame(ORIGIN, DOWN)
    await share_of(two, worked=True)
    for origins in (one, two):
        assert (await origins.blame(ORIGIN, DOWN))[0].rest_s == 0
    standing, begins = await one.blame(ORIGIN, DOWN)
    assert begins
    assert standing.rest_s == 0.2
    standing, begins = await two.blame(ORIGIN, DOWN)
    assert not begins, "it was under way when the rest began"
    assert await share_of(two) == 0


async def test_rests_grow_and_end_with_one_try_until_it_is_given_up(
    replica: Callable[..., Origins],
) -> None:
    one, two = replica("a"), replica("b")
    for planned_s in (0.2, 0.4):
        standing, _ = await one.blame(ORIGIN, BUSY)
        assert (standing.rest_s, standing.given_up) == (planned_s, None)
        await asyncio.sleep(planned_s + 0.01)
        assert [await share_of(one), await share_of(two)] == [1, 0]
    standing, _ = await one.blame(ORIGIN, DOWN)
    assert (standing.rest_s, standing.given_up) == (0.8, ErrorCode.CONNECT_FAILED)
    await asyncio.sleep(0.81)
    assert await share_of(two) == 1
    assert await share_of(two, 1, worked=True) == 4, "the other one is still there"


async def test_what_is_open_counts_while_an_origin_rests_and_after(
    replica: Callable[..., Origins],
) -> None:
    one, two = replica("a"), replica("b")
    assert await share_of(one) == 8
    await two.blame(ORIGIN, BUSY)
    assert await share_of(one, 5, wants=False) == 0
    await asyncio.sleep(0.21)
    assert await share_of(one, 5, wants=False) == 0, "who tries is for others to say"
    assert await share_of(two) == 1
    assert await share_of(two, 1, worked=True) == 3
    assert await share_of(one, 2) == 4


async def test_what_an_origin_asks_for_is_heard_within_bounds(
    replica: Callable[..., Origins],
) -> None:
    one = replica("a")
    patient, _ = await one.blame(ORIGIN, dataclasses.replace(BUSY, asked_s=7))
    assert patient.rest_s == 7
    longer, _ = await one.blame(ORIGIN, dataclasses.replace(BUSY, asked_s=1e9))
    assert longer.rest_s == 300


@pytest.mark.parametrize("seed", range(10))
async def test_shares_together_are_never_more_than_there_are(
    replica: Callable[..., Origins], seed: int
) -> None:
    draw = random.Random(seed)
    held: dict[str, int] = {}
    most = 0
    for _ in range(100):
        name = draw.choice("abcd")
        if draw.random() < 0.1:
            await share_of(replica(name), None)
            held[name] = 0
        else:
            open_ = draw.randint(0, held.get(name, 0))
            held[name] = max(open_, await share_of(replica(name), open_))
        most = max(most, sum(held.values()))
        assert most <= 8
    assert most == 8


async def test_without_redis_nobody_can_say(make_settings: Callable[..., Settings]) -> None:
    made = make_settings()
    away = made.redis.model_copy(update={"port": free_port()})
    client: redis.asyncio.Redis = connect(away)
    with pytest.raises(ServiceError) as caught:
        await share_of(Origins(Scripts(client), "a", made.fetch))
    assert caught.value.code is ErrorCode.UNAVAILABLE
    await client.aclose()


# One replica among them


async def ignore(_: bytes) -> None: ...


async def test_connections_that_few_have_need_of_are_closed(
    replica: Callable[..., Origins],
    make_settings: Callable[..., Settings],
    origin: Origin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Idle ones are used in turn: a trickle of visits would keep all open, and count for one."""
    monkeypatch.setattr("imgsvc.outbound.origin._IDLE_S", 1.0)
    made = make_settings()
    crowd = Crowd()
    url = origin.add("picture.jpg", crowd.answer)
    politeness = Politeness(replica("a"), Metrics())
    outbound = Outbound(made.net, made.fetch, sniff)

    async def trickle() -> None:
        while True:
            await outbound.download(url, ignore, politeness.visit)

    async def one_is_left() -> bool:
        return crowd.open() == 1

    tasks = [asyncio.create_task(politeness.keep_sharing())]
    try:
        await asyncio.gather(*(outbound.download(url, ignore, politeness.visit) for _ in range(8)))
        assert crowd.open() == 8
        tasks.append(asyncio.create_task(trickle()))
        await wait_until(one_is_left, "all but one are closed", 10)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await outbound.close()


class FarAway(Origins):
    """Redis far away: its answers about shares take their time."""

    slow = False

    async def share(self, uses: Mapping[str, OriginUse]) -> dict[str, OriginStanding]:
        found = await super().share(uses)
        if self.slow:
            await asyncio.sleep(0.5)
        return found


async def test_an_answer_on_its_way_does_not_end_the_rest_that_begins(
    make_settings: Callable[..., Settings],
) -> None:
    made = make_settings(fetch={"failures": 1, "rest_s": 60})
    client = connect(made.redis)
    shared = FarAway(Scripts(client), "a", made.fetch)
    politeness = Politeness(shared, Metrics())
    sharing = asyncio.create_task(politeness.keep_sharing())

    async def fail() -> None:
        async with politeness.visit(URL(ORIGIN)):
            shared.slow = True
            await asyncio.sleep(1.2)  # it reports, and has no answer yet
            raise ServiceError(ErrorCode.CONNECT_FAILED)

    try:
        with pytest.raises(ServiceError):
            await fail()
        await asyncio.sleep(0.5)
        with pytest.raises(PutOffError) as caught:
            async with politeness.visit(URL(ORIGIN)):
                pass
        assert caught.value.reason == "rest"
    finally:
        sharing.cancel()
        await client.flushdb()
        await client.aclose()


async def test_a_name_with_a_dot_at_its_end_is_the_same_origin(
    replica: Callable[..., Origins],
) -> None:
    politeness = Politeness(replica("a"), Metrics())
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(politeness.visit(URL(f"{ORIGIN}:8080")))
        with pytest.raises(PutOffError) as caught:
            async with politeness.visit(URL("http://origin.example.:8080")):
                pass
    assert caught.value.reason == "line"
