"""What waits in Redis of a request that was erased is dropped, and nothing of any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from imgsvc.domain.messages import ImageJob, WebhookJob
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.keys import DEAD, FETCH, IN_FLIGHT, NOTIFY, delayed, waiting
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.runtime.settings import Settings

ERASED, KEPT = "5f1c6d1e-erased", "5f1c6d1e-kept"


@pytest.fixture
async def client(make_settings: Callable[..., Settings]) -> AsyncIterator[Redis]:
    async with connect(make_settings().redis) as client:
        yield client
        await client.flushdb()


@pytest.fixture
async def boxes(client: Redis, make_settings: Callable[..., Settings]) -> Mailboxes:
    made = Mailboxes(client, make_settings().redis, "me")
    await made.prepare()
    return made


async def put_aside(boxes: Mailboxes, request_id: str) -> None:
    """Have a request's webhook and an image wait, and let another image be dead."""
    images = [ImageJob(request_id=request_id, product=n, index=0) for n in range(2)]
    webhook = WebhookJob(request_id=request_id)
    for mailbox, jobs in ((FETCH, images), (NOTIFY, [webhook])):
        await boxes.streams.deal(mailbox, jobs, bounded=False)
        inbox = boxes.inbox(mailbox)
        taken = await inbox.take(9, 100) or await inbox.take(9, 100)
        first, *dead = taken
        assert await boxes.delayed.put_aside(first, jobs[0], 1000)
        for envelope in dead:
            assert await boxes.dead_letters.bury(envelope, "tired")
        await inbox.close()


async def test_message_mark_count_and_dead_letter_go(boxes: Mailboxes, client: Redis) -> None:
    for request_id in (ERASED, KEPT):
        await put_aside(boxes, request_id)
    await boxes.forget(ERASED)
    for mailbox in (FETCH, NOTIFY):
        (left,) = await client.zrange(delayed(mailbox), 0, -1)
        assert KEPT in left
        assert await client.hgetall(waiting(mailbox)) == {KEPT: "1"}
    marks = await client.zrange(IN_FLIGHT, 0, -1)
    assert len(marks) == 2
    assert all(mark.startswith(f"{KEPT}/") for mark in marks)
    assert [letter.key for letter in await boxes.dead_letters.oldest(9)] == [f"{KEPT}/1-0"]
    assert await client.xlen(DEAD) == 1

    await boxes.forget(KEPT)
    for key in (delayed(FETCH), delayed(NOTIFY), waiting(FETCH), waiting(NOTIFY), IN_FLIGHT):
        assert not await client.exists(key)


async def test_what_goes_back_meanwhile_is_whole(boxes: Mailboxes, client: Redis) -> None:
    """A message that a Clock moved in between is in its mailbox, with its mark."""
    await put_aside(boxes, ERASED)
    (member,) = await client.zrange(delayed(NOTIFY), 0, -1)
    await client.zadd(delayed(NOTIFY), {member: 0})
    assert await boxes.delayed.promote(NOTIFY) is None
    keys = (delayed(NOTIFY), waiting(NOTIFY), IN_FLIGHT)
    assert await boxes.scripts.run("forget", keys, (ERASED, member)) == 0
    assert await client.xlen(NOTIFY) == 1
    assert f"{ERASED}/webhook" in await client.zrange(IN_FLIGHT, 0, -1)
