"""One attempt to deliver one webhook: signed at this moment, sent, and judged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from imgsvc.domain.backoff import parse_retry_after
from imgsvc.domain.errors import ServiceError
from imgsvc.outbound.client import Outbound
from imgsvc.webhooks.signature import signed_headers

# Whose Retry-After is heard: those that say that the receiver is busy or away.
_BUSY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt."""

    status: int | None  # of the receiver's answer, if there was one
    latency_ms: int
    error: str | None  # None: it was delivered
    retry_after_s: float | None = None
    cause: str | None = None  # of a failure to connect, for operators

    @property
    def is_final(self) -> bool:
        """Whether the receiver wants no further attempt."""
        return self.error is None or self.status == HTTPStatus.GONE


async def deliver(
    outbound: Outbound,
    url: str,
    *,
    message_id: str,
    body: bytes,
    secrets: Sequence[str],
    headers: Mapping[str, str],
    timeout_s: float,
    tenant: str,
) -> Outcome:
    """Send a webhook once.

    Args:
        outbound: the guarded way out.
        url: the receiver's.
        message_id: the same for every attempt at one webhook.
        body: what to send and sign.
        secrets: each signs.
        headers: what the receiver wants to be sent along.
        timeout_s: for all of it.
        tenant: whose webhook it is.
    """
    signed = signed_headers(message_id, datetime.now(UTC), body, secrets)
    started = time.monotonic()
    try:
        answer = await outbound.post(url, body, {**headers, **signed}, timeout_s, tenant)
    except ServiceError as failure:
        return Outcome(None, _ms_since(started), failure.code.name, cause=failure.cause)
    latency_ms = _ms_since(started)
    if 200 <= answer.status < 300:  # noqa: PLR2004 - the definition of success
        return Outcome(answer.status, latency_ms, None)
    retry_after = answer.retry_after if answer.status in _BUSY else None
    return Outcome(
        answer.status,
        latency_ms,
        f"status {answer.status}",
        parse_retry_after(retry_after, datetime.now(UTC)),
    )


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
