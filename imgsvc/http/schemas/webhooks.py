"""Webhooks: where one stands, its deliveries, and a test."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from imgsvc.domain.model import Shape, WebhookStatus


class Webhook(Shape):
    """Where the announcement stands."""

    status: WebhookStatus
    attempts: int


class Attempt(Shape):
    """One attempt to deliver a webhook."""

    attempt: int
    at: datetime
    status: int | None
    latency_ms: int | None
    error: Annotated[
        str | None,
        Field(description="null: delivered. UNFINISHED: under way, or lost with its replica."),
    ]


class Deliveries(Shape):
    """The last 100 attempts, oldest first."""

    attempts: list[Attempt]
    next_attempt_at: datetime | None


class Replayed(Shape):
    """The webhook will be sent once more, in a new cycle of attempts."""

    request_id: str
    webhook: Webhook


class TestDelivery(Shape):
    """What came of a test."""

    delivered: bool
    status: Annotated[int | None, Field(description="Of the receiver's answer, if it gave one.")]
    latency_ms: int
    error: str | None
