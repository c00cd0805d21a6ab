"""Notifier: tells the client that its request has ended."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import ClassVar

from imgsvc import backoff, webhooks
from imgsvc.actors.base import Done, Later, MailboxActor, Parts, Verdict
from imgsvc.errors import ServiceError
from imgsvc.ledger import Delivery
from imgsvc.mailboxes import NOTIFY, Facts
from imgsvc.messages import WebhookJob
from imgsvc.model import RequestStatus

_GONE = 410


class Notifier(MailboxActor[WebhookJob]):
    """Takes announcements that are due now."""

    name: ClassVar[str] = "notifier"
    jobs = WebhookJob

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        webhook = parts.settings.webhook
        self._waits = backoff.exponential(webhook.attempts, webhook.delay_ms / 1000)
        self._secrets = [secret.get_secret_value() for secret in webhook.secrets]

    def mailbox(self) -> str:
        """Shared: any replica may announce."""
        return NOTIFY

    def capacity(self) -> int:
        """As set."""
        return self.parts.settings.webhook.concurrency

    async def handle(self, job: WebhookJob, facts: Facts) -> Verdict:  # noqa: ARG002
        """Make one attempt to deliver a webhook.

        Twice is safe because each run first claims an attempt in the ledger: a crash between
        the POST and its record costs an attempt and repeats the same ``webhook-id``.
        """
        settings, ledger = self.parts.settings.webhook, self.parts.ledger
        delivery = await ledger.claim_delivery(job.request_id, settings.attempts)
        if delivery is None:
            return Done(event="webhook.void")
        started = time.monotonic()
        status, error, retry_after = await self._post(job, delivery)
        latency_ms = round((time.monotonic() - started) * 1000)
        wait_s = None
        if error and status != _GONE:
            wait_s = backoff.next_wait_s(
                self._waits,
                delivery.attempt,
                jitter=settings.jitter,
                rand=random.random(),  # noqa: S311 - spreads retries, no secret
                retry_after_s=backoff.parse_retry_after(retry_after, datetime.now(UTC)),
            )
        await ledger.record_delivery(
            job.request_id,
            attempt=delivery.attempt,
            http_status=status,
            latency_ms=latency_ms,
            error=error,
            next_wait_s=wait_s,
        )
        outcome = "delivered" if not error else "failed" if wait_s is None else "retried"
        self.parts.metrics.webhook_attempts.labels(outcome).inc()
        told = {
            "result": outcome,
            "post": delivery.attempt,
            "status": status,
            "error": error,
            "latency_ms": latency_ms,
        }
        if wait_s is None:
            return Done(event="webhook.attempted", told=told)
        return Later(job, wait_s, event="webhook.attempted", told=told)

    async def _post(
        self, job: WebhookJob, delivery: Delivery
    ) -> tuple[int | None, str | None, str | None]:
        """The receiver's status, why that is no delivery, and its Retry-After."""
        now = datetime.now(UTC)
        kind = webhooks.event_type(RequestStatus(delivery.status["status"]))
        body = webhooks.payload(kind, now, delivery.status)
        headers = webhooks.signed_headers(f"msg_{job.request_id}", now, body, self._secrets)
        try:
            answer = await self.parts.outbound.post(
                delivery.url, body, headers, self.parts.settings.webhook.timeout_s
            )
        except ServiceError as error:
            return None, error.code.name, None
        if 200 <= answer.status < 300:  # noqa: PLR2004 - the definition of success
            return answer.status, None, None
        return answer.status, f"status {answer.status}", answer.retry_after

    async def give_up(self, job: WebhookJob, reason: str) -> None:
        """Record that the announcement failed; left pending, it would come back for ever."""
        self.log.error("webhook.given_up", reason=reason)
        await self.parts.ledger.abandon_webhook(job.request_id)
