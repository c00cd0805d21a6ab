"""Tour 6: a receiver that is down for a while still gets the news."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support import Origin, Receiver, Service


async def test_a_failed_delivery_is_repeated_with_growing_waits(
    start_service: Callable[..., Any], origin: Origin, receiver: Receiver
) -> None:
    service = await start_service(webhook={"delay_ms": 200, "jitter": 0})
    receiver.script = [500, 503, 200]
    request_id = await service.upload([[origin.url("rocket.jpg")]], webhookUrl=receiver.url)
    status = await service.announced(request_id)
    assert status["webhook"] == {"status": "DELIVERED", "attempts": 3}

    # One id for all attempts, so that the receiver can tell repeats; a new time for each.
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 1
    first, second, third = (r.at for r in receiver.received)
    assert second - first >= 0.2
    assert third - second >= 0.4

    _, found = await service.get(f"/api/requests/{request_id}/deliveries")
    assert [a["status"] for a in found["attempts"]] == [500, 503, 200]


async def test_after_the_last_attempt_it_is_failed(
    service: Service, origin: Origin, receiver: Receiver
) -> None:
    receiver.script = [500] * 9
    request_id = await service.upload([[origin.url("rocket.jpg")]], webhookUrl=receiver.url)
    status = await service.announced(request_id)
    assert status["webhook"] == {"status": "FAILED", "attempts": 5}
    assert len(receiver.received) == 5
    assert status["status"] == "COMPLETED"
