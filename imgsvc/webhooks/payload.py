"""What a webhook says and how it is signed, after Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
Nothing here sends anything; the Notifier does.
"""

from __future__ import annotations

import base64
import secrets as random_source
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from standardwebhooks.webhooks import Webhook

from imgsvc.domain.model import OPEN_REQUEST, Event, RequestStatus
from imgsvc.runtime.settings import SECRET_PREFIX

TEST_EVENT = "webhook.test"


def event_type(status: RequestStatus) -> Event:
    """The event that announces a finished request: ``request.completed`` and its like.

    Raises:
        ValueError: a request in this status is not finished, so there is nothing to announce.
    """
    if status in OPEN_REQUEST:
        raise ValueError(f"a {status} request is not finished and has no event")
    return Event(f"request.{status.lower()}")


def payload(
    event: str,
    timestamp: datetime,
    data: Mapping[str, Any],
    **beside: Any,
) -> bytes:
    """The body of a webhook: JSON with ``type``, ``timestamp``, ``data``, and what goes beside.

    Args:
        event: one of what :func:`event_type` returns, or ``TEST_EVENT``.
        timestamp: when the event happened, with a time zone; written in UTC with ``Z``.
        data: the request as ``/status`` shows it; so the size does not depend on the request's.
        beside: which of its ends it is (``cycle``), where the rest is (``links``).

    Raises:
        ValueError: the timestamp has no time zone.
    """
    body = {"type": event, "timestamp": _utc(timestamp), "data": data, **beside}
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


def signed_headers(
    message_id: str, at: datetime, body: bytes, secrets: Sequence[str]
) -> dict[str, str]:
    """The headers that let a receiver check where a body comes from and how old it is.

    Every secret signs, so a receiver may hold the old or the new one while they rotate.

    Args:
        message_id: the same for every attempt at one announcement; receivers drop repeats by it.
        at: when this attempt is made, with a time zone.
        body: the bytes that will be sent, UTF-8; exactly these are signed.
        secrets: as ``check_webhook_secret`` passes them. With none there is no signature header.

    Raises:
        ValueError: ``at`` has no time zone, or the body is not UTF-8.
    """
    # sign() throws the zone away and takes what is left for UTC.
    at = _utc(at)
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
    }
    if secrets:
        text = body.decode()
        headers["webhook-signature"] = " ".join(
            Webhook(secret).sign(message_id, at, text) for secret in secrets
        )
    return headers


def new_secret() -> str:
    """A fresh random secret of 32 bytes."""
    return SECRET_PREFIX + base64.b64encode(random_source.token_bytes(32)).decode()


def _utc(moment: datetime) -> datetime:
    """The same moment in UTC; one without a zone is refused, since any guess may be wrong."""
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone; pass datetime.now(UTC)")
    return moment.astimezone(UTC)
