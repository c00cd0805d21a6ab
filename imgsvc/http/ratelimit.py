"""Rate limits, counted in Redis and so shared by all replicas.

Headers as in draft-ietf-httpapi-ratelimit-headers. When Redis cannot be asked, calls are let in:
a limiter that is away must not take the service with it. That is said in log and metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from aiohttp import web

from imgsvc import logs
from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.http import keys

_PERIOD_S = 60
_log = logs.get("ratelimit")


async def admit(request: web.Request, policy: str) -> Mapping[str, str]:
    """Let a call in, or raise; returns the headers that tell where the client stands.

    Args:
        request: the call.
        policy: ``upload`` or ``read``.

    Raises:
        ServiceError: RATE_LIMITED.
    """
    settings = request.app[keys.SETTINGS].ratelimit
    if not settings.enabled:
        return {}
    limit = settings.uploads_per_minute if policy == "upload" else settings.reads_per_minute
    client = request[keys.CLIENT]
    try:
        admitted, remaining, reset_s, wait_s = await request.app[keys.MAILBOXES].take_token(
            f"{policy}:{client}", limit, _PERIOD_S
        )
    except ServiceError as error:
        request.app[keys.METRICS].ratelimit_open.inc()
        _log.warning("ratelimit.failed_open", policy=policy, reason=error.detail)
        return {}
    headers = {
        "RateLimit-Policy": f'"{policy}";q={limit};w={_PERIOD_S}',
        "RateLimit": f'"{policy}";r={remaining};t={math.ceil(reset_s)}',
    }
    if not admitted:
        raise RateLimitedError(limit, wait_s, headers)
    return headers


class RateLimitedError(ServiceError):
    """A client called too often; carries the headers that say so."""

    def __init__(self, limit: int, wait_s: float, headers: Mapping[str, str]) -> None:
        super().__init__(
            ErrorCode.RATE_LIMITED,
            f"More than {limit} calls in {_PERIOD_S} s; try again in {math.ceil(wait_s)} s.",
            retry_after_s=wait_s,
        )
        self.headers = headers
