"""The call that delivers a test webhook."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from aiohttp import web

from imgsvc.domain.errors import ServiceError
from imgsvc.domain.model import Receiver
from imgsvc.http import keys, problem_details, responses
from imgsvc.http.input import bodies
from imgsvc.runtime import logs
from imgsvc.webhooks.delivery import deliver
from imgsvc.webhooks.payload import TEST_EVENT, payload

_log = logs.get("http")


async def test(request: web.Request) -> web.Response:
    """Deliver one ``webhook.test``, signed like any other webhook, and return the outcome."""
    receiver = await bodies.json(Receiver, request)
    outbound = request.app[keys.OUTBOUND]
    try:
        outbound.guard.parse(receiver.url)
    except ServiceError as error:
        raise problem_details.invalid(["url"], error.detail) from None
    settings = request.app[keys.SETTINGS].webhook
    secrets = [receiver.secret] if receiver.secret else settings.secrets
    outcome = await deliver(
        outbound,
        receiver.url,
        message_id=f"msg_test_{uuid.uuid4()}",
        body=payload(TEST_EVENT, datetime.now(UTC), {"message": "It works."}),
        secrets=[secret.get_secret_value() for secret in secrets],
        headers={name: value.get_secret_value() for name, value in receiver.headers.items()},
        timeout_s=settings.timeout_s,
        tenant=request[keys.QUOTA_TENANT],
    )
    if outcome.cause:
        _log.warning("webhook.test_failed", error=outcome.error, cause=outcome.cause)
    return responses.json(
        {
            "delivered": outcome.error is None,
            "status": outcome.status,
            "latencyMs": outcome.latency_ms,
            "error": outcome.error,
        }
    )
