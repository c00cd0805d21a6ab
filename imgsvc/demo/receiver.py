"""Where the webhook goes: a client that believes nothing unless its signature is right."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from imgsvc.demo.loopback import serving

_SHOWN = ("content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One call as it arrived.

    Args:
        headers: those that matter, names in lower case.
        body: the exact bytes, as text; they are what is signed.
        verified: whether the signature is that of these bytes, and recent.
    """

    headers: dict[str, str]
    body: str
    verified: bool

    @property
    def content(self) -> Any:
        """The body's JSON, or the text as it is where nobody vouches that it is JSON."""
        return json.loads(self.body) if self.verified else self.body


class Receiver:
    """Takes webhooks signed with a secret, and keeps what came, in order.

    Args:
        secret: shared with the service.
    """

    def __init__(self, secret: str) -> None:
        self._webhook = Webhook(secret)
        self.deliveries: list[Delivery] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Receives while the context is open; gives the address for ``webhookUrl``."""
        async with serving(self._answer) as base:
            yield f"{base}/webhook"

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            self._webhook.verify(body, headers)
        except WebhookVerificationError:
            verified = False
        else:
            verified = True
        shown = {name: headers[name] for name in _SHOWN if name in headers}
        self.deliveries.append(Delivery(shown, body, verified))
        return web.Response(status=204 if verified else 401)
