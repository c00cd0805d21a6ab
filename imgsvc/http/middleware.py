"""What happens around every call: its id, its refusals, its log line, its headers."""

from __future__ import annotations

import ipaddress
import re
import time
import uuid
from collections.abc import Iterable

import structlog
from aiohttp import web
from aiohttp.hdrs import METH_ALL

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Scope, Shape
from imgsvc.http import keys, problem_details
from imgsvc.http.keys import Handler
from imgsvc.http.limits import ratelimit
from imgsvc.ledger import NOBODY
from imgsvc.runtime import logs
from imgsvc.runtime.settings import Network

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
}
_CUSTOMER_BITS = 64  # of an IPv6 address; the rest is the customer's to choose
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
        for header, place in (("RateLimit-Policy", 0), ("RateLimit", 1)):
            response.headers[header] = ", ".join(
                f'"{name}";{told[place]}' for name, told in limits.items()
            )


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One canonical log line, one measurement, and the call's id in all that is logged."""
    given = request.headers.get("X-Request-Id", "")
    request[keys.CALL_ID] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    request[keys.CLIENT] = client = _client(request)
    request[keys.TENANT], request[keys.QUOTA_TENANT] = NOBODY, _quota_tenant(client)
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
        request.app[keys.INTAKE].release(request)
        seconds = time.monotonic() - started
        # Clients may make methods up; each would be a series of its own for ever.
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
    """Every refusal is problem+json, and no traceback reaches a client."""
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
    except ConnectionResetError:  # the client's: those of our servers are told as ServiceErrors
        return web.Response(status=_GONE, reason="Client Closed Request")
    except Exception:  # noqa: BLE001 - the outermost edge
        _log.exception("http.failed", path=request.path)
        return problem_details.response(ServiceError(ErrorCode.INTERNAL))


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who calls, and whether they may; what the table of routes leaves open is."""
    authenticator = request.app.get(keys.AUTHENTICATOR)
    # An address that is in no table is told to be none, whoever asks.
    if authenticator and request.match_info.http_exception is None:
        # What should ever be served beside the table is the operator's.
        scope = request.app[keys.SCOPES].get(request.match_info.handler, Scope.ADMIN)
        if scope:
            caller = await authenticator.caller(request.headers.getall("Authorization", []))
            structlog.contextvars.bind_contextvars(tenant=caller.tenant, key=caller.key)
            caller.must_have(scope)
            request[keys.TENANT] = request[keys.QUOTA_TENANT] = caller.tenant
    return await handler(request)


@web.middleware
async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Uploads and reads are limited separately; operators' calls are not."""
    policy = request.app[keys.POLICIES].get(request.match_info.handler)
    if policy:
        await ratelimit.admit(request, policy)
    return await handler(request)


@web.middleware
async def no_query(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse the query of a call that has none: it would be overlooked in silence."""
    if request.query_string and request.match_info.handler in request.app[keys.WITHOUT_QUERY]:
        problem_details.query(_NoQuery, request)
    return await handler(request)


def _client(request: web.Request) -> str:
    """The client's address: the last hop that is not a proxy of ours.

    What stands further left in X-Forwarded-For was written by the client itself.
    """
    trusted = request.app[keys.SETTINGS].http.trusted_proxies
    hops = [h.strip() for h in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")]
    address = request.remote or "unknown"
    for hop in reversed(hops):
        if not hop or not _is_in(address, trusted):
            break
        address = hop[:64]
    return address


def _quota_tenant(client: str) -> str:
    """Whose quota an address counts against: a network of IPv6 is one customer's."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv4Address):
        return client
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _CUSTOMER_BITS), strict=False))


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


MIDDLEWARES = (observe, refuse, authenticate, limit, no_query)
