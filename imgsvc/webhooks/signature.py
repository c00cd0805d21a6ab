"""How a webhook is signed, after Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import secrets as random_source
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks.webhooks import Webhook

from imgsvc.runtime.settings import SECRET_PREFIX
from imgsvc.webhooks.payload import in_utc


def signed_headers(
    message_id: str, at: datetime, body: bytes, secrets: Sequence[str]
) -> dict[str, str]:
    """The headers that let a receiver check where a body comes from and how old it is.

    Every secret signs, so a receiver may hold the old or the new one while they rotate.

    Args:
        message_id: the same for every attempt at one webhook; receivers drop repeats by it.
        at: when this attempt is made, with a time zone.
        body: the bytes that will be sent, UTF-8; exactly these are signed.
        secrets: as ``check_webhook_secret`` passes them. With none there is no signature header.

    Raises:
        ValueError: ``at`` has no time zone, or the body is not UTF-8.
    """
    # sign() throws the zone away and takes what is left for UTC.
    at = in_utc(at)
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
