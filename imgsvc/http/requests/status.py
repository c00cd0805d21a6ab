"""The calls for the status of a request, and for a page of requests."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from imgsvc.http import keys, responses
from imgsvc.http.input import schema_validation
from imgsvc.http.requests import cursors, tenancy
from imgsvc.http.schemas.requests import RequestsQuery


async def status(request: web.Request) -> web.Response:
    """The status object."""
    return responses.json(await tenancy.status(request))


async def requests(request: web.Request) -> web.Response:
    """A page of requests, newest first."""
    wanted = schema_validation.query(RequestsQuery, request)
    limit = min(wanted.limit, request.app[keys.SETTINGS].http.page_limit)
    found = await request.app[keys.LEDGER].requests.newest(
        request[keys.TENANT],
        status=wanted.status,
        created_after=wanted.created_after,
        created_before=wanted.created_before,
        before=_request_cursor(wanted.cursor),
        limit=limit + 1,
    )
    page = found[:limit]
    more = len(found) > limit
    last = cursors.encode([page[-1]["createdAt"], page[-1]["requestId"]]) if more else None
    return responses.json({"requests": page, "nextCursor": last})


def _request_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    at, last = cursors.decode(cursor)
    try:
        return datetime.fromisoformat(at).astimezone(UTC), str(last)
    except (TypeError, ValueError, OverflowError):
        raise cursors.invalid() from None
