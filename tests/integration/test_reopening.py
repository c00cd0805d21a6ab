"""Images that are worked on again: whoever is late with an earlier turn changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from imgsvc.ledger import Choice, Ledger
from tests.integration.ledgers import FAILED, completed, known, products
from tests.integration.proxy import Proxy


async def retry(ledger: Ledger, request_id: str) -> None:
    """Have the failed images of an ended request worked on again, and open them."""
    assert await ledger.commands.retry(request_id, Choice(), 1)
    assert not await ledger.commands.carry_out_retry(request_id)


async def image(ledger: Ledger, request_id: str) -> dict[str, Any]:
    [product] = await products(ledger, request_id)
    [only] = product["images"]
    return {**only, "open": product["open"]}


@pytest.mark.parametrize("late", [FAILED, completed()])
async def test_an_image_ends_in_its_turn_only(
    ledger: Ledger, started: Callable[..., Awaitable[str]], late: Any
) -> None:
    request_id = await started(1)
    await ledger.images.finish(request_id, 0, 0, FAILED)
    await retry(ledger, request_id)
    opened = await image(ledger, request_id)
    await ledger.images.finish(request_id, 0, 0, late, turn=0)
    assert await image(ledger, request_id) == opened
    assert (opened["status"], opened["open"]) == ("PENDING", 1)
    assert (await known(ledger, request_id))["status"] == "PROCESSING"
    await ledger.images.finish(request_id, 0, 0, completed(), turn=1)
    assert (await known(ledger, request_id))["status"] == "COMPLETED"


async def test_an_earlier_retry_opens_nothing_that_a_later_one_has_opened(
    ledger: Ledger, bad_network: tuple[Proxy, Ledger], started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(1)
    await ledger.images.finish(request_id, 0, 0, FAILED)
    assert await ledger.commands.retry(request_id, Choice(), 1)
    network, late = bad_network
    network.hold = b"images.0.turn"  # it knows what it will open for the first retry
    opening = asyncio.create_task(late.commands.carry_out_retry(request_id))
    await network.held.wait()
    await ledger.commands.carry_out_retry(request_id)
    await ledger.images.finish(request_id, 0, 0, FAILED, turn=1)
    await retry(ledger, request_id)
    await ledger.images.finish(request_id, 0, 0, FAILED, turn=2)
    ended = await image(ledger, request_id)
    network.release()
    await opening
    assert await image(ledger, request_id) == ended
    assert (ended["status"], ended["turn"], ended["open"]) == ("FAILED", 2, 0)
    assert (await known(ledger, request_id))["status"] == "FAILED"


async def test_an_earlier_retry_that_ends_late_does_not_end_a_later_one(
    ledger: Ledger, bad_network: tuple[Proxy, Ledger], started: Callable[..., Awaitable[str]]
) -> None:
    request_id = await started(1)
    await ledger.images.finish(request_id, 0, 0, FAILED)
    assert await ledger.commands.retry(request_id, Choice(), 1)
    network, late = bad_network
    network.hold = b"\x0areopen\0"  # all is opened, and it is about to say so
    opening = asyncio.create_task(late.commands.carry_out_retry(request_id))
    await network.held.wait()
    await ledger.commands.carry_out_retry(request_id)
    await ledger.images.finish(request_id, 0, 0, FAILED, turn=1)
    assert await ledger.commands.retry(request_id, Choice(), 1)
    network.release()
    await opening
    assert await ledger.commands.pending_retries(10) == [request_id]
    await ledger.commands.carry_out_retry(request_id)
    opened = await image(ledger, request_id)
    assert (opened["status"], opened["turn"]) == ("PENDING", 2)
