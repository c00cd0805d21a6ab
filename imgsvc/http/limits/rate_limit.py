"""Rate limits, counted in Redis and so shared by all replicas.

Headers as in draft-ietf-httpapi-ratelimit-headers. The limiter fails open: while Redis does not
answer, all calls are let in, and log and metrics say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.http import keys
from imgsvc.runtime import logs, redaction

MINUTE_S = 60
_log = logs.get("ratelimit")


@dataclass(frozen=True, slots=True)
class Policy:
    """How much a tenant may take in a period.

    Attributes:
        name: as headers show it.
        limit: how much; 0: without limit.
        period_s: in so many seconds.
        code: of the refusal.
        refusal: its first half sentence, with the limit in it.
    """

    name: str
    limit: int
    period_s: int
    code: ErrorCode
    refusal: str


async def admit(request: web.Request, name: str) -> None:
    """Let a call in, or raise.

    Args:
        request: the call.
        name: the limit that counts it, ``upload`` or ``read``.

    Raises:
        ServiceError: RATE_LIMITED.
    """
    settings = request.app[keys.SETTINGS].ratelimit
    limit = settings.uploads_per_minute if name == "upload" else settings.reads_per_minute
    refusal = f"More than {limit} calls in {MINUTE_S} s"
    await take(request, Policy(name, limit, MINUTE_S, ErrorCode.RATE_LIMITED, refusal))


async def take(request: web.Request, policy: Policy, cost: int = 1) -> None:
    """Take from a limit of the call's tenant; the call's headers will tell what is left.

    Args:
        request: the call.
        policy: the limit.
        cost: how much; negative gives back.

    Raises:
        ServiceError: with the policy's code; then nothing was taken.
    """
    if not policy.limit or not request.app[keys.SETTINGS].ratelimit.enabled:
        return
    try:
        taken = await request.app[keys.MAILBOXES].limits.take(
            f"{policy.name}:{request[keys.QUOTA_TENANT]}", policy.limit, policy.period_s, cost
        )
    except Exception as error:  # noqa: BLE001 - fail open, whatever it is
        request.app[keys.METRICS].ratelimit_open.inc()
        _log.warning("ratelimit.failed_open", policy=policy.name, reason=redaction.of_error(error))
        return
    request[keys.LIMITS][policy.name] = (
        f"q={policy.limit};w={policy.period_s}",
        f"r={taken.remaining};t={math.ceil(taken.reset_s)}",
    )
    if not taken.admitted:
        wait_s = max(1, math.ceil(taken.wait_s))
        raise ServiceError(
            policy.code, f"{policy.refusal}; try again in {wait_s} s.", retry_after_s=wait_s
        )
