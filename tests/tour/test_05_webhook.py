"""Tour 5: the end of a request is announced once, signed."""

from __future__ import annotations

import json

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.conftest import SECRET
from tests.support import Origin, Receiver, Service


async def test_the_end_is_announced_with_a_signature(
    service: Service, origin: Origin, receiver: Receiver
) -> None:
    request_id = await service.upload([[origin.url("rocket.jpg")]], webhookUrl=receiver.url)
    status = await service.announced(request_id)
    assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}

    (received,) = receiver.received
    assert received.headers["webhook-id"] == f"msg_{request_id}"

    # Any Standard Webhooks library can check it, and notices a changed byte.
    Webhook(SECRET).verify(received.body, received.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(received.body.replace(b"COMPLETED", b"FAILED!!!"), received.headers)

    body = json.loads(received.body)
    assert body["type"] == "request.completed"
    assert body["data"]["requestId"] == request_id
    assert body["data"]["processedImages"] == 1
