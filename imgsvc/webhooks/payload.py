"""What a webhook says, after Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

TEST_EVENT = "webhook.test"


def payload(
    event: str,
    timestamp: datetime,
    data: Mapping[str, Any],
    **beside: Any,
) -> bytes:
    """The body of a webhook: JSON with ``type``, ``timestamp``, ``data``, and what goes beside.

    Args:
        event: one of what ``model.event_type`` returns, or ``TEST_EVENT``.
        timestamp: when the event happened, with a time zone; written in UTC with ``Z``.
        data: the request as ``/status`` shows it; so the size does not depend on the request's.
        beside: which of its ends it is (``cycle``), where the rest is (``links``).

    Raises:
        ValueError: the timestamp has no time zone.
    """
    body = {"type": event, "timestamp": in_utc(timestamp), "data": data, **beside}
    return orjson.dumps(body, option=orjson.OPT_UTC_Z)


def message_id(request_id: str, cycle: int) -> str:
    """The ``webhook-id`` of one end of a request: the same however often it is announced.

    Args:
        request_id: whose end.
        cycle: which of its ends, from 1; there are more if failed images were tried again.
    """
    return f"msg_{request_id}" if cycle == 1 else f"msg_{request_id}_{cycle}"


def links(request_id: str) -> dict[str, str]:
    """Where the rest about a request is, as paths: behind a proxy no service knows its name."""
    return {
        "status": f"/status/{request_id}",
        "images": f"/api/requests/{request_id}/images",
        "report": f"/download/{request_id}",
    }


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; one without a zone is refused, since any guess may be wrong."""
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone; pass datetime.now(UTC)")
    return moment.astimezone(UTC)
