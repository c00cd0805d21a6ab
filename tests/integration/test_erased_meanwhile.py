"""An upload is sent once more, and its request is erased at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from imgsvc.ledger import Idempotency, Ledger
from tests.integration.ledgers import new_request
from tests.integration.proxy import Proxy

AT = {
    "its products are written": b"insert\x00\x09\x00\x00\x00products",
    "it is accepted": b"insert\x00\x09\x00\x00\x00requests",
}


@pytest.mark.parametrize("held", AT.values(), ids=AT)
async def test_it_makes_a_new_request_and_nothing_is_left_of_the_old_one(
    connect: Callable[[], Ledger], bad_network: tuple[Proxy, Ledger], stored: Any, held: bytes
) -> None:
    near = connect()
    await near.prepare()
    proxy, far = bad_network
    idempotency = Idempotency("4711", "digest", 3600)
    old = await near.uploads.accept(new_request(1, idempotency=idempotency))
    proxy.hold = held
    again = asyncio.create_task(far.uploads.accept(new_request(1, idempotency=idempotency)))
    await proxy.held.wait()
    await near.erasures.ask(old)
    await near.commands.carry_out_cancellation(old)
    assert await near.erasures.due(10) == [old]
    while await near.erasures.erase_products(old, 100):
        pass
    await near.erasures.erase_request(old)
    proxy.release()
    new = await again
    assert new != old
    assert await stored.products.distinct("request") == [new]
    assert [entry["request"] async for entry in stored.intakes.find()] == [new]
    assert await near.journal.accepted_before(new_request(1, idempotency=idempotency)) == new
