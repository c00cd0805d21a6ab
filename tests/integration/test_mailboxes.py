"""Mailboxes: a message is in exactly one, whatever happens to Redis, the network or a replica."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import RedisError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import Compressed, Fetched, ImageJob, WebhookJob
from imgsvc.domain.model import Recipe
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.mailboxes.bell import Listener
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.envelope import Envelope
from imgsvc.mailboxes.inbox import Inbox
from imgsvc.mailboxes.keys import (
    DEAD,
    DEALING,
    FETCH,
    FETCH_PRIORITY,
    IN_FLIGHT,
    NOTIFY,
    WAKE,
    compress_lane,
    delayed,
    upload_lane,
)
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.runtime.settings import Redis as RedisSettings
from imgsvc.runtime.settings import Settings
from tests.integration.proxy import between
from tests.support import wait_until

LONG_MS = 9000
FETCHED = Fetched(file="abc", bytes_in=10, recipe=Recipe())


def jobs(count: int, request: str = "r") -> list[ImageJob]:
    return [ImageJob(request_id=request, product=n, index=0) for n in range(count)]


JOB = jobs(1)[0]


class Replica:
    """The mailboxes of one replica, over connections of its own."""

    def __init__(self, name: str, settings: RedisSettings) -> None:
        self.name = name
        self.settings = settings
        self.client = connect(settings)
        self.boxes = Mailboxes(self.client, settings, name)
        self._closing: list[Callable[[], Awaitable[None]]] = [self.client.aclose]

    def inbox(self, mailbox: str = FETCH) -> Inbox:
        made = self.boxes.inbox(mailbox)
        self._closing.append(made.close)
        return made

    def bell(self) -> Listener:
        made = self.boxes.bell.listener()
        self._closing.append(made.close)
        return made

    async def dealt_to(self, count: int, mailbox: str = FETCH) -> list[Envelope]:
        """Deal jobs and take them."""
        await self.boxes.streams.deal(mailbox, jobs(count), bounded=False)
        return await take(self.inbox(mailbox), count)

    async def in_redis(self) -> dict[str, Any]:
        """Everything that Redis holds, but for what only readers touch."""
        read: dict[str, Callable[[str], Awaitable[Any]]] = {
            "stream": self._stream,
            "zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
            "list": lambda key: self.client.lrange(key, 0, -1),
            "string": self.client.get,
            "hash": self.client.hgetall,
        }
        return {
            key: await read[await self.client.type(key)](key)
            async for key in self.client.scan_iter()
        }

    async def _stream(self, key: str) -> Any:
        pending = None
        with contextlib.suppress(Exception):
            pending = (await self.client.xpending(key, "imgsvc"))["pending"]
        return await self.client.xrange(key), pending

    async def entries(self, mailbox: str) -> list[dict[str, str]]:
        return [fields for _, fields in await self.client.xrange(mailbox)]

    async def is_blocked(self, count: int = 1) -> bool:
        return (await self.client.info("clients"))["blocked_clients"] >= count

    async def close(self) -> None:
        for close in self._closing:
            await close()


@pytest.fixture
async def replica(
    make_settings: Callable[..., Settings],
) -> AsyncIterator[Callable[..., Awaitable[Replica]]]:
    """Makes replicas; what they leave in Redis is wiped, for nobody finishes their work."""
    async with contextlib.AsyncExitStack() as stack:
        wiper = Replica("wiper", make_settings().redis)
        stack.push_async_callback(wiper.close)
        stack.push_async_callback(wiper.client.flushall)

        async def make(name: str = "a", *, port: int | None = None, **redis: Any) -> Replica:
            settings = make_settings(redis=redis).redis
            made = Replica(name, settings.model_copy(update={"port": port or settings.port}))
            stack.push_async_callback(made.close)
            await made.boxes.prepare()
            return made

        yield make


async def take(inbox: Inbox, count: int) -> list[Envelope]:
    """Take until there are ``count``."""
    taken: list[Envelope] = []

    async def enough() -> bool:
        taken.extend(await inbox.take(count - len(taken), block_ms=200))
        return len(taken) >= count

    await wait_until(enough, f"{count} messages in {inbox.name}", 5)
    return taken


async def keys(inbox: Inbox, count: int) -> list[str]:
    return sorted(envelope.key for envelope in await take(inbox, count))


async def is_away(call: Awaitable[Any]) -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.retry_after_s


# A message is passed on once.

MOVES: dict[str, Callable[[Mailboxes, Envelope], Awaitable[bool]]] = {
    "hand_off": lambda boxes, e: boxes.streams.hand_off(e, compress_lane("a"), JOB, FETCHED),
    "settle": lambda boxes, e: boxes.streams.settle(e),
    "later": lambda boxes, e: boxes.delayed.put_aside(e, JOB, 30),
    "bury": lambda boxes, e: boxes.dead_letters.bury(e, "tired"),
}


@pytest.mark.parametrize("second", MOVES)
@pytest.mark.parametrize("first", MOVES)
async def test_what_was_moved_cannot_be_moved_again(
    replica: Callable[..., Any], first: str, second: str
) -> None:
    a = await replica()
    (envelope,) = await a.dealt_to(1)
    assert await MOVES[first](a.boxes, envelope)
    before = await a.in_redis()
    assert not await MOVES[second](a.boxes, envelope)
    assert await a.in_redis() == before


@pytest.mark.parametrize("move", MOVES)
async def test_of_many_movers_at_once_one_succeeds(replica: Callable[..., Any], move: str) -> None:
    replicas = [await replica(name) for name in "abcd"]
    (envelope,) = await replicas[0].dealt_to(1)
    won = await asyncio.gather(*(MOVES[move](r.boxes, envelope) for r in replicas * 5))
    assert won.count(True) == 1


async def test_messages_moved_together_are_moved_each_once(replica: Callable[..., Any]) -> None:
    here = await replica()
    envelopes = await here.dealt_to(9)
    await here.client.script_flush()  # as after a restart of Redis
    moved = await asyncio.gather(
        *(
            here.boxes.streams.hand_off(e, NOTIFY, job, None)
            for e, job in zip(envelopes, jobs(9), strict=True)
        ),
        *(here.boxes.streams.settle(e) for e in envelopes),
    )
    assert moved == [True] * 9 + [False] * 9
    assert await here.client.xlen(NOTIFY) == 9


async def test_a_message_carries_job_facts_and_losses_to_the_next_mailbox(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    (envelope,) = await a.dealt_to(1)
    lost = replace(envelope, deliveries=2)
    await a.boxes.streams.hand_off(lost, compress_lane("a"), JOB, FETCHED)
    (next_one,) = await take(a.inbox(compress_lane("a")), 1)
    assert ImageJob.model_validate_json(next_one.job) == JOB
    assert Fetched.model_validate_json(next_one.facts) == FETCHED
    assert (next_one.key, next_one.deliveries) == (JOB.key, 2)
    assert await a.client.xlen(FETCH) == 0


async def test_replicas_lost_with_an_image_do_not_count_against_its_webhook(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    (envelope,) = await a.dealt_to(1)
    lost = replace(envelope, deliveries=4)
    await a.boxes.streams.hand_off(lost, NOTIFY, WebhookJob(request_id="r"), None)
    (webhook,) = await take(a.inbox(NOTIFY), 1)
    assert webhook.deliveries == 0


async def test_a_buried_message_keeps_its_reason_and_may_be_dealt_again(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    (envelope,) = await a.dealt_to(1)
    await a.boxes.dead_letters.bury(envelope, "tired")
    (dead,) = await a.entries(DEAD)
    assert (dead["reason"], dead["from"]) == ("tired", FETCH)
    assert ImageJob.model_validate_json(dead["m"]) == JOB
    assert await a.boxes.streams.deal(FETCH, [JOB], bounded=False) == (1, 1)


async def test_a_dead_letter_is_found_by_its_id_and_by_nothing_else(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    (envelope,) = await a.dealt_to(1)
    await a.boxes.dead_letters.bury(envelope, "tired")
    (letter,) = await a.boxes.dead_letters.oldest(10)
    assert await a.boxes.dead_letters.find(letter.entry_id) == letter
    for typed in (
        "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
        "",
        "-",
        "+",
        "$",
        "1-",
        "99",
        "\u0661-\u0662",
    ):
        assert await a.boxes.dead_letters.find(typed) is None
    milliseconds, _ = letter.entry_id.split("-")
    assert await a.boxes.dead_letters.find(milliseconds) == letter


# Dealing.


async def test_a_key_is_dealt_once_however_often_and_by_however_many(
    replica: Callable[..., Any],
) -> None:
    replicas = [await replica(name) for name in "abcde"]
    deals = [r.boxes.streams.deal(FETCH, jobs(100), bounded=False) for r in replicas * 3]
    answers = await asyncio.gather(*deals)
    assert sum(added for _, added in answers) == 100
    assert await keys(replicas[0].inbox(), 100) == sorted(job.key for job in jobs(100))


async def test_a_key_stays_in_flight_until_it_is_settled(replica: Callable[..., Any]) -> None:
    a = await replica()
    lane = compress_lane("a")

    async def added() -> int:
        return int((await a.boxes.streams.deal(FETCH, [JOB], bounded=False))[1])

    (envelope,) = await a.dealt_to(1)
    assert await added() == 0, "while it is worked on"
    await a.boxes.streams.hand_off(envelope, lane, JOB, None)
    assert await added() == 0, "in the next mailbox"
    (envelope,) = await take(a.inbox(lane), 1)
    await a.boxes.delayed.put_aside(envelope, JOB, 0)
    assert await added() == 0, "put aside"
    await a.boxes.delayed.promote(lane)
    (envelope,) = await take(a.inbox(lane), 1)
    await a.boxes.streams.settle(envelope)
    assert await added() == 1


async def test_a_webhook_that_a_dealer_put_meanwhile_is_not_put_twice(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    (envelope,) = await a.dealt_to(1)
    webhook = WebhookJob(request_id="r")
    await a.boxes.streams.deal(NOTIFY, [webhook], bounded=False)
    assert await a.boxes.streams.hand_off(envelope, NOTIFY, webhook, None)
    assert await a.client.xlen(NOTIFY) == 1
    assert await a.client.zrange(IN_FLIGHT, 0, -1) == [webhook.key]


async def test_a_mailbox_holds_one_window_for_each_live_replica(
    replica: Callable[..., Any],
) -> None:
    a = await replica("a", window=4, heartbeat_s=60)
    await a.boxes.replicas.beat()
    assert await a.boxes.streams.deal(FETCH, jobs(10), bounded=True) == (4, 4)
    assert await a.boxes.streams.deal(FETCH, jobs(10), bounded=True) == (0, 0)
    await (await replica("b", window=4, heartbeat_s=60)).boxes.replicas.beat()
    assert await a.boxes.streams.deal(FETCH, jobs(10), bounded=True) == (8, 4)
    assert await a.boxes.streams.deal(FETCH_PRIORITY, jobs(12)[8:], bounded=True) == (2, 2)
    assert await a.boxes.streams.deal(FETCH, jobs(12), bounded=False) == (12, 2)


async def test_a_mailbox_that_runs_low_rings_for_the_dealer(replica: Callable[..., Any]) -> None:
    a = await replica(window=4)
    bell = a.bell()
    envelopes = await a.dealt_to(4)
    await a.boxes.streams.settle(envelopes[0])
    assert await a.client.llen(WAKE) == 0, "three are left, more than half a window"
    await a.boxes.streams.settle(envelopes[1])
    await a.boxes.streams.settle(envelopes[2])
    await a.boxes.streams.hand_off(envelopes[3], compress_lane("a"), JOB, None)
    assert await a.client.llen(WAKE) == 1, "rung once, not once for each"
    assert await bell.wait(5) == "low"
    assert not await bell.wait(0.01)


async def test_new_work_wakes_the_dealer(replica: Callable[..., Any]) -> None:
    a = await replica()
    waiting = asyncio.create_task(a.bell().wait(LONG_MS / 1000))
    await wait_until(a.is_blocked, "the dealer waits")
    async with asyncio.timeout(2):
        for _ in range(3):
            await a.boxes.bell.ring()
        assert await waiting == "news"
    assert await a.client.llen(WAKE) <= 1


async def test_the_bell_tells_of_new_work_first(replica: Callable[..., Any]) -> None:
    a = await replica(window=8)
    (envelope,) = await a.dealt_to(1)
    await a.boxes.streams.settle(envelope)
    assert await a.client.llen(WAKE) == 1, "the mailbox runs low"
    await a.boxes.bell.ring()
    bell = a.bell()
    assert await bell.wait(5) == "news"
    assert not await bell.wait(0.01), "a round for new work fills the mailbox too"


async def test_one_dealer_leads_until_it_stops_or_falls_silent(replica: Callable[..., Any]) -> None:
    replicas = [await replica(name) for name in "abc"]
    a, b, c = (r.boxes for r in replicas)
    assert await asyncio.gather(*(x.lead.hold(DEALING, 60) for x in (a, b, c))) == [
        True,
        False,
        False,
    ]
    assert await a.lead.hold(DEALING, 60), "and stays the leader"
    await b.lead.release(DEALING)
    assert not await b.lead.hold(DEALING, 60), "only the leader can resign"
    await a.lead.release(DEALING)
    assert await b.lead.hold(DEALING, 0.05)
    await wait_until(lambda: c.lead.hold(DEALING, 60), "a silent leader is replaced", 5)


# Later.


async def test_what_is_put_aside_comes_back_when_it_is_due_and_not_before(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    assert await a.boxes.delayed.promote(FETCH) is None
    (envelope,) = await a.dealt_to(1)
    second_try = JOB.model_copy(update={"attempt": 2})
    await a.boxes.delayed.put_aside(envelope, second_try, 0.3)
    put_aside = time.monotonic()
    assert await a.boxes.delayed.counts(FETCH) == {JOB.request_id: 1}
    next_s = await a.boxes.delayed.promote(FETCH)
    assert next_s is not None
    assert 0.1 < next_s <= 0.3
    assert await a.client.xlen(FETCH) == 0

    async def came_back() -> bool:
        return await a.boxes.delayed.promote(FETCH) is None

    await wait_until(came_back, "it is due", 5)
    assert time.monotonic() - put_aside > 0.25
    (fields,) = await a.entries(FETCH)
    assert ImageJob.model_validate_json(fields["m"]) == second_try
    assert await a.client.exists(delayed(FETCH)) == 0
    assert await a.boxes.delayed.counts(FETCH) == {}


async def test_who_is_waited_for_comes_back_first_while_there_is_room(
    replica: Callable[..., Any],
) -> None:
    a = await replica(window=8)  # so there are two such places
    await a.boxes.replicas.beat()
    urgent = [job.model_copy(update={"priority": True}) for job in jobs(3)]
    others, priority = a.inbox(), a.inbox(FETCH_PRIORITY)
    for job in urgent:
        await a.boxes.streams.deal(FETCH_PRIORITY, [job], bounded=True)
        (envelope,) = await take(priority, 1)
        assert await a.boxes.delayed.put_aside(envelope, job, 0)
    await a.boxes.streams.deal(FETCH, jobs(4)[3:], bounded=True)
    (envelope,) = await take(others, 1)
    await a.boxes.delayed.put_aside(envelope, jobs(4)[3], 0)
    assert await a.client.xlen(FETCH_PRIORITY) == 0
    assert await a.boxes.delayed.counts(FETCH) == {JOB.request_id: 4}
    assert await a.boxes.delayed.promote(FETCH) is None
    assert await keys(priority, 2) == [job.key for job in urgent[:2]]
    assert await keys(others, 2) == [job.key for job in jobs(4)[2:]]


async def test_images_of_small_requests_that_a_lost_replica_had_stay_in_their_mailbox(
    replica: Callable[..., Any],
) -> None:
    a, b = await replica("a"), await replica("b")
    await a.boxes.streams.deal(FETCH_PRIORITY, [JOB], bounded=True)
    (lost,) = await take(a.inbox(FETCH_PRIORITY), 1)
    assert await b.boxes.replicas.silent() == {"a"}
    assert await b.boxes.replicas.reclaim("a") == 1
    (again,) = await take(b.inbox(FETCH_PRIORITY), 1)
    assert again.entry_id != lost.entry_id
    assert not await a.boxes.streams.settle(lost)
    assert await b.boxes.replicas.silent() == set()


async def test_what_is_put_aside_stays_charged_for_the_replicas_it_was_lost_with(
    replica: Callable[..., Any],
) -> None:
    a, b = await replica("a"), await replica("b")
    (envelope,) = await a.dealt_to(1)
    await a.boxes.streams.begin(envelope)
    assert await b.boxes.replicas.reclaim("a") == 1
    (charged,) = await take(b.inbox(), 1)
    await b.boxes.delayed.put_aside(charged, JOB, 0)
    await b.boxes.delayed.promote(FETCH)
    (again,) = await take(b.inbox(), 1)
    assert again.deliveries == 1


async def test_racing_clocks_bring_each_message_back_once(replica: Callable[..., Any]) -> None:
    clocks = [await replica(name) for name in "abcde"]
    a = clocks[0]
    for envelope in await a.dealt_to(120):  # more than one batch
        job = ImageJob.model_validate_json(envelope.job)
        await a.boxes.delayed.put_aside(envelope, job, 0)
    await asyncio.gather(*(clock.boxes.delayed.promote(FETCH) for clock in clocks * 3))
    assert await keys(a.inbox(), 120) == sorted(job.key for job in jobs(120))
    assert await a.client.xlen(FETCH) == 120


# Lost replicas.


async def test_a_dead_replicas_messages_go_back_under_new_ids(replica: Callable[..., Any]) -> None:
    a, b = await replica("a", heartbeat_s=0.05), await replica("b")
    worked_on, passed_on, encoded = await a.dealt_to(3)
    await a.boxes.streams.hand_off(passed_on, compress_lane("a"), jobs(2)[1], FETCHED)
    await a.boxes.streams.hand_off(encoded, upload_lane("a"), jobs(3)[2], FETCHED)
    (taken,) = await take(a.inbox(upload_lane("a")), 1)
    await a.boxes.streams.deal(NOTIFY, [WebhookJob(request_id="r")], bounded=False)
    (webhook,) = await take(a.inbox(NOTIFY), 1)
    for envelope in (worked_on, taken, webhook):
        await a.boxes.streams.begin(envelope)
    await a.boxes.streams.deal(FETCH, jobs(4), bounded=False)  # the fourth is nobody's yet

    assert await wait_until(b.boxes.replicas.silent, "a fell silent", 5) == {"a"}
    assert await b.boxes.replicas.reclaim("a") == 4

    back = await take(b.inbox(), 4)
    assert worked_on.entry_id not in {e.entry_id for e in back}
    losses = {e.key: e.deliveries for e in back}
    assert losses == {"r/0-0": 1, "r/1-0": 0, "r/2-0": 1, "r/3-0": 0}
    assert all(not e.facts for e in back), "the bytes died with the replica"
    (webhook,) = await take(b.inbox(NOTIFY), 1)
    assert webhook.deliveries == 1
    assert await a.client.exists(compress_lane("a"), upload_lane("a")) == 0
    assert await b.boxes.replicas.silent() == set()


@pytest.mark.parametrize("move", MOVES)
async def test_a_zombie_cannot_move_what_was_taken_from_it(
    replica: Callable[..., Any], move: str
) -> None:
    zombie, b = await replica("zombie"), await replica("b")
    (envelope,) = await zombie.dealt_to(1)
    assert await b.boxes.replicas.reclaim("zombie") == 1
    before = await b.in_redis()
    assert not await MOVES[move](zombie.boxes, envelope)
    assert await b.in_redis() == before
    (again,) = await take(b.inbox(), 1)
    assert await b.boxes.streams.settle(again)


async def test_a_live_replica_keeps_what_it_has(replica: Callable[..., Any]) -> None:
    a, b = await replica("a", heartbeat_s=60), await replica("b")
    await a.boxes.replicas.beat()
    (envelope,) = await a.dealt_to(1)
    assert await b.boxes.replicas.silent() == set()
    assert await b.boxes.replicas.reclaim("a") == 0
    assert await a.boxes.streams.settle(envelope)


async def test_an_expired_heartbeat_is_silence(replica: Callable[..., Any]) -> None:
    a, b = await replica("a", heartbeat_s=0.05), await replica("b")
    await a.boxes.replicas.beat()
    await a.dealt_to(1)
    await wait_until(b.boxes.replicas.silent, "a fell silent", 5)
    assert await b.boxes.replicas.reclaim("a") == 1


async def test_nobody_calls_itself_silent(replica: Callable[..., Any]) -> None:
    a = await replica("a")
    await a.dealt_to(1)
    assert await a.boxes.replicas.silent() == set()


async def test_reclaiming_by_several_at_once_takes_each_message_once(
    replica: Callable[..., Any],
) -> None:
    a, *others = [await replica(name) for name in "abcd"]
    await a.dealt_to(250)  # more than two batches
    taken_back = await asyncio.gather(*(r.boxes.replicas.reclaim("a") for r in others))
    assert sum(taken_back) == 250
    assert len(set(await keys(others[0].inbox(), 250))) == await a.client.xlen(FETCH) == 250


async def test_leaving_in_good_order_charges_nothing(replica: Callable[..., Any]) -> None:
    a, b = await replica("a", heartbeat_s=60), await replica("b")
    await a.boxes.replicas.beat()
    _, passed_on = await a.dealt_to(2)
    await a.boxes.streams.hand_off(passed_on, compress_lane("a"), jobs(2)[1], FETCHED)
    await take(a.inbox(compress_lane("a")), 1)
    assert await a.boxes.replicas.reclaim("a", leaving=True) == 2
    assert [e.deliveries for e in await take(b.inbox(), 2)] == [0, 0]


async def test_a_message_is_charged_for_every_replica_that_was_lost_with_it(
    replica: Callable[..., Any],
) -> None:
    b = await replica("b")
    await b.boxes.streams.deal(FETCH, [JOB], bounded=False)
    for losses in range(3):
        victim = await replica(f"victim-{losses}")
        (envelope,) = await take(victim.inbox(), 1)
        assert envelope.deliveries == losses
        await victim.boxes.streams.begin(envelope)
        await b.boxes.replicas.reclaim(victim.name)


async def test_what_only_waited_in_hand_is_charged_for_no_replica_that_was_lost(
    replica: Callable[..., Any],
) -> None:
    """Not even if it was read again and again after errors, which counts as deliveries."""
    b = await replica("b")
    await b.boxes.streams.deal(FETCH, jobs(2), bounded=False)
    for _ in range(6):
        victim = await replica("victim", heartbeat_s=0.05)
        _, passed_on = await take(victim.inbox(), 2)
        for _ in range(3):
            await take(victim.inbox(), 2)
        lane = compress_lane("victim")
        await victim.boxes.streams.hand_off(passed_on, lane, jobs(2)[1], FETCHED)
        await take(victim.inbox(lane), 1)
        await wait_until(b.boxes.replicas.silent, "it fell silent", 5)
        assert await b.boxes.replicas.reclaim("victim") == 2
    assert [each.deliveries for each in await take(b.inbox(), 2)] == [0, 0]


async def test_work_that_was_taken_away_cannot_begin(replica: Callable[..., Any]) -> None:
    zombie, b = await replica("zombie"), await replica("b")
    (envelope,) = await zombie.dealt_to(1)
    await b.boxes.replicas.reclaim("zombie")
    (again,) = await take(b.inbox(), 1)
    await zombie.boxes.streams.begin(envelope)
    assert await b.boxes.replicas.reclaim("b", leaving=True) == 1
    assert again.deliveries == 0
    assert (await b.client.xpending(FETCH, "imgsvc"))["pending"] == 0


# Redis forgets.


async def test_a_wiped_redis_gets_its_group_back_and_the_first_message_is_seen(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    inbox = a.inbox()
    await inbox.take(1)  # from now on it waits for what is new
    await a.client.flushall()
    await a.boxes.streams.deal(FETCH, jobs(3), bounded=False)  # makes the stream, without a group
    assert await keys(inbox, 3) == sorted(job.key for job in jobs(3))


async def test_a_read_that_waits_while_redis_is_wiped_goes_on(replica: Callable[..., Any]) -> None:
    a = await replica()
    inbox = a.inbox()
    await inbox.take(1)
    reading = asyncio.create_task(inbox.take(1, block_ms=LONG_MS))
    await wait_until(a.is_blocked, "the read waits")
    async with asyncio.timeout(2):
        await a.client.flushall()
        assert await reading == []
        await a.boxes.streams.deal(FETCH, [JOB], bounded=False)
        assert await keys(inbox, 1) == [JOB.key]


async def test_a_wiped_lane_gets_its_group_back(replica: Callable[..., Any]) -> None:
    a = await replica()
    inbox = a.inbox(upload_lane("a"))
    (envelope,) = await a.dealt_to(1)
    await a.boxes.streams.hand_off(envelope, inbox.name, JOB, FETCHED)  # it has no group either
    assert await keys(inbox, 1) == [JOB.key]


async def test_work_whose_mark_outlived_its_lease_is_dealt_again(
    replica: Callable[..., Any],
) -> None:
    a = await replica(lease_s=0.1)
    await a.boxes.streams.deal(FETCH, jobs(2), bounded=False)
    await wait_until(a.boxes.streams.forget_doubtful, "the marks are doubted", 5)
    assert (await a.boxes.streams.deal(FETCH, [JOB], bounded=False))[1] == 1


async def test_work_within_its_lease_is_not_doubted(replica: Callable[..., Any]) -> None:
    a = await replica(lease_s=0.5)
    (envelope,) = await a.dealt_to(1)
    await a.boxes.delayed.put_aside(envelope, JOB, 60)  # its lease starts when it is due
    await a.boxes.streams.deal(FETCH, jobs(2), bounded=False)
    assert await wait_until(a.boxes.streams.forget_doubtful, "the other is doubted", 5) == 1
    assert await a.client.zrange(IN_FLIGHT, 0, -1) == [JOB.key]


# The network fails.


async def test_an_answer_lost_on_the_way_strands_no_message(replica: Callable[..., Any]) -> None:
    b = await replica("b")
    async with between(b.settings.port) as proxy:
        a = await replica("a", port=proxy.port)
        inbox = a.inbox()
        await inbox.take(1)
        proxy.lose_reply_to = b"XREADGROUP"
        reading = asyncio.create_task(inbox.take(2, block_ms=LONG_MS))
        await wait_until(b.is_blocked, "the read waits")
        await b.boxes.streams.deal(FETCH, [JOB], bounded=False)
        await is_away(reading)
        assert (await b.client.xpending(FETCH, "imgsvc"))["pending"] == 1, "delivered to nobody"
        assert [e.key for e in await inbox.take(2)] == [JOB.key]


async def test_a_killed_connection_neither_loses_nor_repeats(replica: Callable[..., Any]) -> None:
    a = await replica()
    inbox = a.inbox()
    await inbox.take(1)
    await a.boxes.streams.deal(FETCH, [JOB], bounded=False)
    (in_hand,) = await inbox.take(1)
    reading = asyncio.create_task(inbox.take(1, block_ms=LONG_MS))
    await wait_until(a.is_blocked, "the read waits")
    blocked = [c for c in await a.client.client_list() if "b" in c["flags"]]
    await a.client.client_kill_filter(_id=blocked[0]["id"])
    await is_away(reading)
    await a.boxes.streams.deal(FETCH, jobs(2), bounded=False)
    assert await keys(inbox, 1) == ["r/1-0"], "and not what is in hand"
    assert await a.boxes.streams.settle(in_hand)


async def test_reads_cancelled_at_any_moment_strand_nothing(replica: Callable[..., Any]) -> None:
    a = await replica()
    inbox = a.inbox()
    seen: list[str] = []
    for job in jobs(30):
        reading = asyncio.create_task(inbox.take(1, block_ms=LONG_MS))
        await a.boxes.streams.deal(FETCH, [job], bounded=False)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            seen.extend(e.key for e in await reading)
    seen.extend(await keys(inbox, 30 - len(seen)))
    assert sorted(seen) == sorted(job.key for job in jobs(30))


async def test_a_released_message_that_was_not_moved_is_taken_again_after_a_failure(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    inbox = a.inbox()
    await a.boxes.streams.deal(FETCH, [JOB], bounded=False)
    (envelope,) = await take(inbox, 1)
    assert await a.inbox().take(1) == [envelope], "a new reader starts with what was left"
    inbox.release(envelope)
    reading = asyncio.create_task(inbox.take(1, block_ms=LONG_MS))
    await wait_until(a.is_blocked, "the read waits")
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert await inbox.take(1) == [envelope]


async def test_a_write_is_sent_once_even_if_its_answer_is_lost(replica: Callable[..., Any]) -> None:
    b = await replica("b")
    async with between(b.settings.port) as proxy:
        a = await replica("a", port=proxy.port)
        await a.boxes.streams.deal(
            NOTIFY, [WebhookJob(request_id="r")], bounded=False
        )  # loads the script
        proxy.lose_reply_to = JOB.key.encode()
        await is_away(a.boxes.streams.deal(FETCH, [JOB], bounded=False))
        assert await b.client.xlen(FETCH) == 1
        proxy.lose_reply_to = b"XADD"
        with pytest.raises(RedisError):
            await a.client.xadd("bare", {"k": "v"})
        assert await b.client.xlen("bare") == 1


async def test_a_hand_off_whose_answer_is_lost_may_be_repeated(replica: Callable[..., Any]) -> None:
    b = await replica("b")
    async with between(b.settings.port) as proxy:
        a = await replica("a", port=proxy.port)
        first, second = await a.dealt_to(2)
        lane = compress_lane("a")
        await a.boxes.streams.hand_off(first, lane, JOB, None)  # loads the script
        proxy.lose_reply_to = second.entry_id.encode()
        await is_away(a.boxes.streams.hand_off(second, lane, jobs(2)[1], None))
        assert not await a.boxes.streams.hand_off(second, lane, jobs(2)[1], None)
        assert [fields["k"] for fields in await b.entries(lane)] == ["r/0-0", "r/1-0"]


async def test_reads_may_block_longer_than_the_clients_usual_time_limit(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    inbox, bell = a.inbox(), a.bell()
    await inbox.take(1)
    started = time.monotonic()
    assert await asyncio.gather(inbox.take(1, block_ms=5300), bell.wait(5.3)) == [[], ""]
    assert time.monotonic() - started >= 5.3


async def test_ending_reads_returns_this_replicas_and_no_others(
    replica: Callable[..., Any],
) -> None:
    a, b = await replica("a"), await replica("b")
    inboxes = [a.inbox(), a.inbox(upload_lane("a")), b.inbox()]
    for inbox in inboxes:
        while await a.client.exists(inbox.name) == 0 or inbox._suspect:
            await inbox.take(1)
    ours = asyncio.gather(*(inbox.take(1, block_ms=LONG_MS) for inbox in inboxes[:2]))
    theirs = asyncio.create_task(inboxes[2].take(1, block_ms=LONG_MS))
    await wait_until(lambda: a.is_blocked(3), "all reads wait")
    async with asyncio.timeout(2):
        await a.boxes.readers.end_reads()
        assert await ours == [[], []]
        assert await a.is_blocked(), "theirs goes on"
        await b.boxes.readers.end_reads()
        assert await theirs == []


# Redis is away.


async def test_while_redis_is_away_all_say_so_and_then_go_on(
    replica: Callable[..., Any], servers: EmbeddedServers
) -> None:
    a = await replica()
    inbox = a.inbox()
    (envelope,) = await a.dealt_to(1)
    await inbox.take(1)
    reading = asyncio.create_task(inbox.take(1, block_ms=LONG_MS))
    await wait_until(a.is_blocked, "the read waits")
    servers.redis.kill()
    try:
        async with asyncio.timeout(5):
            for call in (
                reading,
                inbox.take(1),
                a.bell().wait(1),
                a.boxes.streams.deal(FETCH, [JOB], bounded=False),
                a.boxes.streams.settle(envelope),
                a.boxes.delayed.promote(FETCH),
                a.boxes.replicas.beat(),
                a.boxes.replicas.silent(),
                a.boxes.limits.take("x", 1, 1),
                a.boxes.streams.lengths(),
                a.boxes.server.check(),
                a.boxes.readers.end_reads(),
            ):
                await is_away(call)
    finally:
        await servers.redis.start()
    await a.boxes.server.check()
    assert await a.boxes.streams.settle(envelope)
    await a.boxes.streams.deal(FETCH, jobs(2), bounded=False)
    assert "r/1-0" in await keys(inbox, 2)


async def test_a_full_redis_refuses_new_work_and_lets_running_work_end(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    first, second = await a.dealt_to(2)
    await a.client.config_set("maxmemory", "1mb")
    try:
        # What only takes away, or passes on what is there already, goes on.
        assert await a.boxes.streams.hand_off(first, compress_lane("a"), JOB, FETCHED)
        assert await a.boxes.streams.settle(second)
        await is_away(a.boxes.streams.deal(FETCH, jobs(5), bounded=False))
        await is_away(a.boxes.replicas.beat())
        await is_away(a.boxes.limits.take("x", 1, 1))
        await is_away(a.boxes.server.check())
        await a.boxes.bell.ring()  # a hint, that never fails
    finally:
        await a.client.config_set("maxmemory", "0")
    assert await a.client.zrange(IN_FLIGHT, 0, -1) == [JOB.key], "nothing is half dealt"
    assert [fields["k"] for fields in await a.entries(compress_lane("a"))] == [JOB.key]


async def test_a_redis_that_only_reads_is_away(replica: Callable[..., Any]) -> None:
    a = await replica()
    await a.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        await is_away(a.boxes.replicas.beat())
        await is_away(a.boxes.server.check())
        await a.boxes.bell.ring()
    finally:
        await a.client.execute_command("REPLICAOF", "NO", "ONE")


async def test_a_redis_that_may_evict_is_not_ready(replica: Callable[..., Any]) -> None:
    a = await replica()
    await a.boxes.server.check()
    await a.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ServiceError, match="noeviction"):
            await a.boxes.server.check()
    finally:
        await a.client.config_set("maxmemory-policy", "noeviction")


# What else is asked of Redis.


async def test_tokens_run_out_and_come_back_one_by_one(replica: Callable[..., Any]) -> None:
    boxes = (await replica()).boxes
    calls = [await boxes.limits.take("upload:c", 3, 1.5) for _ in range(4)]
    assert [admitted for admitted, *_ in calls] == [True, True, True, False]
    assert [remaining for _, remaining, *_ in calls] == [2, 1, 0, 0]
    assert (await boxes.limits.take("upload:d", 3, 1.5))[0], "others are not limited by it"
    _, _, reset_s, wait_s = calls[-1]
    assert 0 < wait_s <= 0.5
    assert 1 < reset_s <= 1.5
    refused = time.monotonic()

    async def admitted() -> bool:
        return (await boxes.limits.take("upload:c", 3, 1.5))[0]

    await wait_until(admitted, "a token came back", 5)
    assert time.monotonic() - refused >= wait_s - 0.05
    assert not await admitted(), "one, not all"


async def test_what_costs_more_takes_more_and_is_taken_whole_or_not_at_all(
    replica: Callable[..., Any],
) -> None:
    boxes = (await replica()).boxes
    assert (await boxes.limits.take("images:c", 100, 60, 70)).remaining == 30
    refused = await boxes.limits.take("images:c", 100, 60, 31)
    assert (refused.admitted, refused.remaining) == (False, 30)
    assert 0 < refused.wait_s <= 0.6  # one in 0.6 s comes back
    assert (await boxes.limits.take("images:c", 100, 60, 30)).admitted
    for limit in (1, 7, 100, 99_999, 100_000, 10**12):
        whole = await boxes.limits.take(f"whole:{limit}", limit, 60, limit)
        assert (whole.admitted, whole.remaining) == (True, 0)


async def test_what_is_given_back_can_be_taken_again(replica: Callable[..., Any]) -> None:
    boxes = (await replica()).boxes
    await boxes.limits.take("images:c", 100, 60, 100)
    assert (await boxes.limits.take("images:c", 100, 60, -40)).remaining == 40
    assert not (await boxes.limits.take("images:c", 100, 60, 50)).admitted
    assert (await boxes.limits.take("images:c", 100, 60, 40)).admitted
    # More than was taken is not given back.
    assert (await boxes.limits.take("images:c", 100, 60, -1000)).remaining == 100


async def test_what_is_taken_in_any_case_is_owed(replica: Callable[..., Any]) -> None:
    boxes = (await replica()).boxes
    asked = await boxes.limits.take("bytes:c", 1000, 2, 0)
    assert (asked.admitted, asked.remaining) == (True, 1000)
    assert (await boxes.limits.take("bytes:c", 1000, 2, 1000, owed=True)).admitted
    assert (await boxes.limits.take("bytes:c", 1000, 2, 0)).admitted, "all is used, none is owed"
    assert (await boxes.limits.take("bytes:c", 1000, 2, 500, owed=True)).admitted
    asked = await boxes.limits.take("bytes:c", 1000, 2, 0)
    assert (asked.admitted, asked.remaining) == (False, 0)
    assert 0.5 < asked.wait_s <= 1

    async def paid() -> bool:
        return (await boxes.limits.take("bytes:c", 1000, 2, 0)).admitted

    await wait_until(paid, "time pays it back", 5)


async def test_all_replicas_share_one_limit(replica: Callable[..., Any]) -> None:
    replicas = [await replica(name) for name in "abc"]
    calls = [r.boxes.limits.take("reads:c", 7, 60) for r in replicas * 10]
    answers = await asyncio.gather(*calls)
    assert [admitted for admitted, *_ in answers].count(True) == 7


async def test_files_in_lanes_are_those_that_messages_refer_to(
    replica: Callable[..., Any],
) -> None:
    a = await replica()
    first, second, third = await a.dealt_to(3)
    encoded = Compressed(
        file="def", bytes_in=9, bytes_out=5, format="png", width=1, height=1, note=""
    )
    await a.boxes.streams.hand_off(first, compress_lane("a"), JOB, FETCHED)
    await a.boxes.streams.hand_off(second, upload_lane("a"), jobs(2)[1], encoded)
    await a.boxes.streams.hand_off(
        third, compress_lane("another"), jobs(3)[2], Fetched(file="x", bytes_in=1, recipe=Recipe())
    )
    assert await a.boxes.streams.files_in_lanes() == {"abc", "def"}
    lengths = {
        "fetch": 0,
        "fetch:priority": 0,
        "copies": 0,
        "notify": 0,
        "compress": 1,
        "upload": 1,
        "dead": 0,
    }
    assert await a.boxes.streams.lengths() == lengths
