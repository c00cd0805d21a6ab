"""The calls about webhooks: list the deliveries, deliver again, deliver a test."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import OPEN_REQUEST, Receiver, WebhookStatus
from imgsvc.http import bodies, keys, problem_details, responses, tenancy
from imgsvc.runtime import logs
from imgsvc.webhooks.delivery import deliver
from imgsvc.webhooks.payload import TEST_EVENT, payload

_log = logs.get("http")


async def deliveries(request: web.Request) -> web.Response:
    """The attempts to deliver a request's webhook, and when the next one is due."""
    found = await tenancy.status(request)
    return responses.json(await request.app[keys.LEDGER].delivery_log.attempts(found["requestId"]))


async def replay(request: web.Request) -> web.Response:
    """Deliver a request's webhook once more."""
    found = await tenancy.status(request)
    request_id = found["requestId"]
    if found["status"] in OPEN_REQUEST:
        raise ServiceError(ErrorCode.NOT_FINISHED, retry_after_s=5)
    if found["webhook"] is None:
        raise ServiceError(ErrorCode.NO_WEBHOOK)
    if not await request.app[keys.LEDGER].deliveries.replay(request_id):
        raise ServiceError(ErrorCode.WEBHOOK_PENDING, retry_after_s=5)
    await request.app[keys.MAILBOXES].bell.ring()
    return responses.json(
        {"requestId": request_id, "webhook": {"status": WebhookStatus.PENDING, "attempts": 0}},
        status=202,
    )


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
