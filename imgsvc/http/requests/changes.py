"""The calls that change a request: retry what failed, cancel, erase."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import OPEN_REQUEST, RequestStatus, SerialNumber
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http import keys, problem_details, responses
from imgsvc.http.input import bodies
from imgsvc.http.limits import quotas
from imgsvc.http.requests import tenancy
from imgsvc.http.schemas.requests import Retry
from imgsvc.ledger import Choice
from imgsvc.runtime import logs

_log = logs.get("http")


async def retry(request: web.Request) -> web.Response:
    """Work on failed images again; the request will end a second time."""
    wanted = await bodies.json(Retry, request) if request.can_read_body else Retry()
    found = await tenancy.status(request)
    request_id, status = found["requestId"], found["status"]
    ledger = request.app[keys.LEDGER]
    if status in OPEN_REQUEST:
        raise ServiceError(ErrorCode.NOT_FINISHED, retry_after_s=5)
    if status == RequestStatus.CANCELLED:
        raise ServiceError(ErrorCode.WAS_CANCELLED)
    products = await _products(request, wanted.products, found["totalProducts"])
    choice = Choice(codes=wanted.codes, products=products)
    images = await ledger.choices.count_failed(request_id, choice)
    if not images:
        raise ServiceError(ErrorCode.NOTHING_TO_RETRY)
    most = quotas.of_one_upload(request.app[keys.SETTINGS]).max_images
    if images > most:
        msg = f"{images} images are more than the {most} allowed at once; name some, then others"
        raise problem_details.invalid(["products"], msg)
    async with quotas.charged(request, images, object()):
        if not await ledger.commands.retry(request_id, choice, images):
            raise ServiceError(ErrorCode.NOT_FINISHED, retry_after_s=5)
    return await _accepted(request, "request.retried", RequestStatus.PROCESSING)


async def _products(
    request: web.Request, names: Sequence[SerialNumber] | None, total_products: int
) -> Sequence[SerialNumber] | None:
    """The products that a client named, as the ledger knows them."""
    if names is None:
        return None
    ledger, request_id = request.app[keys.LEDGER], request.match_info["id"]
    found = await ledger.choices.resolve_products(request_id, names, total_products)
    problems = ValidationProblems()
    for i, name in enumerate(found):
        if isinstance(name, int) and name < 0:
            msg = "is no product's serial number, and no product's number"
            problems.add(["products", i], msg)
    if problems.count:
        raise problem_details.refusal(ErrorCode.VALIDATION_FAILED, problems)
    return found


async def cancel(request: web.Request) -> web.Response:
    """Stop what has not been done; cancelling twice changes nothing."""
    request_id = (await tenancy.status(request))["requestId"]
    ledger = request.app[keys.LEDGER]
    await ledger.commands.cancel(request_id)
    # A small request ends at once; the dealer does the rest.
    await ledger.commands.carry_out_cancellation(request_id)
    status = (await tenancy.status(request))["status"]
    if status not in {*OPEN_REQUEST, RequestStatus.CANCELLED}:
        raise ServiceError(ErrorCode.ALREADY_FINISHED)
    return await _accepted(request, "request.cancelled", status)


async def erase(request: web.Request) -> web.Response:
    """Have a request erased; asked again, say whether that is done."""
    request_id, tenant = request.match_info["id"], request[keys.TENANT]
    ledger = request.app[keys.LEDGER]
    if not await ledger.erasures.find(request_id, tenant):
        await tenancy.status(request)
        await ledger.erasures.ask(request_id)
        await ledger.commands.carry_out_cancellation(request_id)
        _log.info("request.erasing", request_id=request_id)
        await request.app[keys.MAILBOXES].bell.ring()
    erasure = await ledger.erasures.find(request_id, tenant)
    return responses.json(
        {"requestId": request_id, "erased": bool(erasure and erasure.erased_at)}, status=202
    )


async def _accepted(request: web.Request, event: str, status: str) -> web.Response:
    request_id = request.match_info["id"]
    _log.info(event, request_id=request_id)
    await request.app[keys.MAILBOXES].bell.ring()
    return responses.json(
        {"requestId": request_id, "status": status},
        status=202,
        headers={"Location": f"/status/{request_id}"},
    )
