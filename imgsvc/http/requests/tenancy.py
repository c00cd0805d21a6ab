"""A tenant sees its own requests only: for everybody else they do not exist."""

from __future__ import annotations

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.http import keys
from imgsvc.ledger import Document, iso


async def status(request: web.Request) -> Document:
    """The status object of the request in the call's path.

    Raises:
        ServiceError: NOT_FOUND if the tenant has no such request, even if another has; GONE if it
            was erased or has expired.
    """
    request_id, tenant = request.match_info["id"], request[keys.TENANT]
    ledger = request.app[keys.LEDGER]
    if found := await ledger.requests.status(request_id, tenant):
        return found
    if erasure := await ledger.erasures.find(request_id, tenant):
        at = erasure.erased_at
        raise ServiceError(
            ErrorCode.GONE,
            f"The request was erased at {iso(at)}." if at else "The request is being erased.",
        )
    raise ServiceError(ErrorCode.NOT_FOUND, "There is no request with this id.")
