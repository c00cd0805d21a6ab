"""Erasures that the bucket refuses, as the ledger keeps them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imgsvc.ledger import Ledger

Start = Callable[..., Awaitable[str]]


@pytest.fixture
def erasing(ledger: Ledger, started: Start) -> Start:
    """Makes a request that is to be erased."""

    async def make(**more: Any) -> str:
        request_id = await started(1, **more)
        await ledger.erasures.ask(request_id)
        await ledger.commands.carry_out_cancellation(request_id)
        return request_id

    return make


async def test_what_was_refused_waits_longer_each_time(ledger: Ledger, erasing: Start) -> None:
    request_id = await erasing()
    waits = [await ledger.refusals.refuse(request_id, "held", passing=False) for _ in range(16)]
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert waits == sorted(waits)
    assert waits[-2:] == [3600, 3600]
    assert await ledger.erasures.due(10) == []
    (told,) = await ledger.refusals.find(10)
    assert (told.request_id, told.reason, told.tries) == (request_id, "held", 16)
    assert told.again_at > datetime.now(UTC) + timedelta(minutes=50)
    assert await ledger.refusals.count() == 1


async def test_while_the_bucket_is_away_nobody_waits_long(ledger: Ledger, erasing: Start) -> None:
    request_id = await erasing()
    waits = [await ledger.refusals.refuse(request_id, "away", passing=True) for _ in range(10)]
    assert waits[-1] == 60


async def test_what_was_refused_goes_behind_what_was_not(ledger: Ledger, erasing: Start) -> None:
    held = [await erasing() for _ in range(4)]
    for request_id in held:
        await ledger.refusals.refuse(request_id, "held", passing=False)
        await ledger.refusals.retry_now(request_id)
    free = [await erasing() for _ in range(2)]
    assert await ledger.erasures.due(3) == [*free, *held[:3]]


async def test_who_asks_again_or_an_operator_has_it_tried_at_once(
    ledger: Ledger, erasing: Start
) -> None:
    request_id = await erasing()
    assert not await ledger.refusals.retry_now(request_id)
    await ledger.refusals.refuse(request_id, "held", passing=False)
    assert await ledger.erasures.due(10) == []
    assert await ledger.refusals.retry_now(request_id)
    assert await ledger.erasures.due(10) == [request_id]


async def test_a_clock_far_ahead_keeps_nothing_waiting(
    ledger: Ledger, erasing: Start, stored: Any
) -> None:
    request_id = await erasing()
    await ledger.refusals.refuse(request_id, "held", passing=False)
    ahead = datetime.now(UTC) + timedelta(days=3)
    await stored.requests.update_one(
        {"_id": request_id}, {"$set": {"refused.at": ahead, "refused.setAt": ahead}}
    )
    assert await ledger.erasures.due(10) == [request_id]


async def test_what_is_swept_up_waits_alike(ledger: Ledger, erasing: Start) -> None:
    request_id, other = await erasing(), await erasing()
    for each in (request_id, other):
        while await ledger.erasures.erase_products(each, 100):
            pass
        await ledger.erasures.erase_request(each)
    now = datetime.now(UTC) + timedelta(seconds=1)
    assert set(await ledger.leftovers.due(now, 10)) == {request_id, other}
    await ledger.refusals.refuse(request_id, "held", passing=False)
    assert set(await ledger.leftovers.due(now, 10)) == {other}
    await ledger.refusals.retry_now(request_id)
    assert list(await ledger.leftovers.due(now, 10)) == [other, request_id]
    await ledger.leftovers.mark_swept(request_id)
    assert await ledger.refusals.count() == 0


async def test_nothing_is_noted_of_what_is_not_to_be_erased(ledger: Ledger, started: Start) -> None:
    request_id = await started(1)
    await ledger.refusals.refuse(request_id, "held", passing=False)
    assert await ledger.refusals.count() == 0
