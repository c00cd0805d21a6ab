"""``POST /api/upload``, from the first byte to the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ParamSpec, TypeVar

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import RequestStatus
from imgsvc.http import keys, problem_details, responses
from imgsvc.http.limits import quotas
from imgsvc.http.uploads import dry_run, idempotency
from imgsvc.http.uploads.parse import parse
from imgsvc.http.uploads.read import UploadBody, read
from imgsvc.http.uploads.validate import Validated, validate
from imgsvc.ledger import NewRequest
from imgsvc.runtime import logs

_LARGE = 32 * 1024  # bytes; checking more would hold up the event loop
_log = logs.get("http")

P = ParamSpec("P")
T = TypeVar("T")
GiveBack = Callable[[], Awaitable[None]]


class _AlreadyAcceptedError(Exception):
    """An upload with the same idempotency key was accepted before."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


async def upload(request: web.Request) -> web.Response:
    """Accept products: 202 once the ledger has them. ``?validate=true`` only checks them."""
    settings = request.app[keys.SETTINGS]
    limits, guard = quotas.of_one_upload(settings), request.app[keys.OUTBOUND].guard
    body = await read(request)
    parsed = await _run(body, parse, body, limits)
    validated = await _run(body, validate, parsed, limits, settings.retention.days, guard)
    if body.dry_run:
        return responses.json(await asyncio.to_thread(dry_run.view, validated))
    new = _new_request(request, body, validated)
    del body, parsed, validated  # many megabytes, and accepting may take long
    try:
        async with _admit(request, new) as give_back:
            request_id = await _accept(request, new, give_back)
    except _AlreadyAcceptedError as repeat:
        return _accepted(repeat.request_id)
    await request.app[keys.MAILBOXES].bell.ring()
    _log.info(
        "request.accepted",
        request_id=request_id,
        products=len(new.products),
        images=new.total_images,
    )
    return _accepted(request_id)


async def _run(body: UploadBody, step: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
    """Run a step in a thread if the body is large."""
    if len(body.file) > _LARGE:
        return await asyncio.to_thread(step, *args, **options)
    return step(*args, **options)


def _new_request(request: web.Request, body: UploadBody, validated: Validated) -> NewRequest:
    """The request to accept.

    Raises:
        ServiceError: something is wrong with the upload, or with its idempotency key.
    """
    if validated.problems.count:
        raise problem_details.refusal(validated.code, validated.problems)
    settings = request.app[keys.SETTINGS]
    return NewRequest(
        [product for _, product in validated.products],
        validated.recipe,
        validated.webhook,
        call_id=request[keys.CALL_ID],
        tenant=request[keys.TENANT],
        quota_tenant=request[keys.QUOTA_TENANT],
        idempotency=idempotency.repeat(request, body, settings.http.idempotency_ttl_s),
        expires_in_days=validated.expires_in_days,
        share=settings.dedupe.enabled,
    )


@contextlib.asynccontextmanager
async def _admit(request: web.Request, new: NewRequest) -> AsyncIterator[GiveBack]:
    """Charge the quotas for a request, unless it was accepted before.

    Gives a function that gives the charge back; that happens by itself if the block raises.

    Raises:
        _AlreadyAcceptedError: it was.
        ServiceError: QUOTA_EXCEEDED or OVERLOADED.
    """
    ledger = request.app[keys.LEDGER]
    if before := await ledger.journal.accepted_before(new):
        raise _AlreadyAcceptedError(before)
    try:
        async with quotas.charged(
            request, new.total_images, new.idempotency or new.id
        ) as give_back:
            yield give_back
    except ServiceError as error:
        # The same upload may have been accepted meanwhile, and its images may fill the quota.
        full = error.code in {ErrorCode.QUOTA_EXCEEDED, ErrorCode.OVERLOADED}
        if full and (before := await ledger.journal.accepted_before(new)):
            raise _AlreadyAcceptedError(before) from None
        raise


async def _accept(request: web.Request, new: NewRequest, give_back: GiveBack) -> str:
    """Write a request to the ledger, and return its id."""
    request_id = await request.app[keys.LEDGER].uploads.accept(new)
    if request_id != new.id:  # the same upload was being accepted, and is charged already
        await give_back()
    return request_id


def _accepted(request_id: str) -> web.Response:
    return responses.json(
        {"requestId": request_id, "status": RequestStatus.PENDING},
        status=202,
        headers={"Location": f"/status/{request_id}"},
    )
