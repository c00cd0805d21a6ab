"""The calls about a request's webhook: list its deliveries, and deliver it again."""

from __future__ import annotations

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import OPEN_REQUEST, WebhookStatus
from imgsvc.http import keys, responses
from imgsvc.http.requests import tenancy


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
