"""What happens around every call: id, log line, headers, errors, authentication, limits."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from aiohttp import web
from aiohttp.hdrs import METH_ALL

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Scope, Shape
from imgsvc.http import authentication, client_address, keys, problem_details
from imgsvc.http.input import schema_validation
from imgsvc.http.keys import Handler
from imgsvc.http.limits import rate_limit
from imgsvc.ledger import NOBODY
from imgsvc.runtime import logs

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
}
_GONE = 499  # the client did not wait for its answer
_HTTP_ERRORS = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.BODY_TOO_LARGE,
}
_log = logs.get("http")


class _NoQuery(Shape):
    """The query of a call that takes none."""


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler: headers go on every answer, streamed ones included."""
    response.headers.update(_HEADERS)
    if keys.CALL_ID in request:
        response.headers["X-Request-Id"] = request[keys.CALL_ID]
    if limits := request.get(keys.LIMITS):
        for header, index in (("RateLimit-Policy", 0), ("RateLimit", 1)):
            response.headers[header] = ", ".join(
                f'"{name}";{values[index]}' for name, values in limits.items()
            )


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the call an id, log it in one canonical line, and measure it."""
    given = request.headers.get("X-Request-Id", "")
    request[keys.CALL_ID] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    trusted_proxies = request.app[keys.SETTINGS].http.trusted_proxies
    request[keys.CLIENT] = client = client_address.of(request, trusted_proxies)
    request[keys.TENANT] = NOBODY
    request[keys.QUOTA_TENANT] = client_address.quota_tenant(client)
    request[keys.LIMITS] = {}
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(call_id=request[keys.CALL_ID])
    resource = request.match_info.route.resource
    route = resource.canonical if resource else "none"
    started = time.monotonic()
    status = _GONE
    try:
        response = await handler(request)
        status = response.status
    finally:
        request.app[keys.BODY_BUDGET].release(request)
        seconds = time.monotonic() - started
        # Clients can invent methods, and each would be a new series for ever.
        method = request.method if request.method in METH_ALL else "other"
        request.app[keys.METRICS].http_seconds.labels(route, method, str(status)).observe(seconds)
        _log.info(
            "http.answered",
            method=request.method,
            path=request.path,
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            client=request[keys.CLIENT],
        )
    return response


@web.middleware
async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with problem details; no traceback reaches a client."""
    try:
        return await handler(request)
    except ServiceError as error:
        if error.remedy:
            _log.error("http.refused", path=request.path, remedy=error.remedy)
        return problem_details.response(error)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - a redirect is no refusal
            raise
        code = _HTTP_ERRORS.get(error.status, ErrorCode.BAD_REQUEST)
        response = problem_details.response(ServiceError(code))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except ConnectionResetError:  # the client's; those of our servers are ServiceErrors
        return web.Response(status=_GONE, reason="Client Closed Request")
    except Exception:  # noqa: BLE001 - the outermost edge
        _log.exception("http.failed", path=request.path)
        return problem_details.response(ServiceError(ErrorCode.INTERNAL))


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who calls and whether they may, unless the table of routes leaves the call open."""
    authenticator = request.app.get(keys.AUTHENTICATOR)
    # An unknown address is 404 for everybody.
    if authenticator and request.match_info.http_exception is None:
        # A handler that is not in the table is for operators only.
        scope = request.app[keys.SCOPES].get(request.match_info.handler, Scope.ADMIN)
        if scope:
            authorization = request.headers.getall("Authorization", [])
            caller = await authentication.identify(authenticator, authorization)
            structlog.contextvars.bind_contextvars(tenant=caller.tenant, key=caller.key)
            authentication.require(caller, scope)
            request[keys.TENANT] = request[keys.QUOTA_TENANT] = caller.tenant
    return await handler(request)


@web.middleware
async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Uploads and reads are limited separately; operators' calls are not."""
    policy = request.app[keys.POLICIES].get(request.match_info.handler)
    if policy:
        await rate_limit.admit(request, policy)
    return await handler(request)


@web.middleware
async def no_query(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a query where the call takes none, rather than ignore it silently."""
    if request.query_string and request.match_info.handler in request.app[keys.WITHOUT_QUERY]:
        schema_validation.query(_NoQuery, request)
    return await handler(request)


MIDDLEWARES = (observe, refuse, authenticate, limit, no_query)
