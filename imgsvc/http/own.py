"""A tenant's own requests: to everybody else they do not exist."""

from __future__ import annotations

from aiohttp import web

from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.http import keys
from imgsvc.ledger import Document


async def status(request: web.Request) -> Document:
    """The status object of the request that the call's path names.

    Raises:
        ServiceError: NOT_FOUND if the caller has no such request, whoever else may have it.
    """
    found = await request.app[keys.LEDGER].status(request.match_info["id"], request[keys.TENANT])
    if found is None:
        raise ServiceError(ErrorCode.NOT_FOUND, "There is no request with this id.")
    return found
