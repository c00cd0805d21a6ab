"""Notifier: delivers the webhooks that tell clients that their requests have ended."""

from __future__ import annotations

import contextlib
import random
import time
from typing import ClassVar

from yarl import URL

from imgsvc.actors.mailbox_actor import MailboxActor
from imgsvc.actors.parts import Parts
from imgsvc.actors.verdicts import Done, Later, Verdict
from imgsvc.domain import backoff
from imgsvc.domain.messages import WebhookJob
from imgsvc.domain.model import RequestStatus, WebhookStatus, event_type
from imgsvc.ledger import UNFINISHED, Delivery, PendingDelivery
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import NOTIFY
from imgsvc.outbound.host_limits import HostLimits
from imgsvc.runtime.fair_semaphore import FairSemaphore
from imgsvc.webhooks.delivery import Outcome, deliver
from imgsvc.webhooks.payload import links, message_id, payload

_IN_HAND = 4  # messages for each attempt that may be under way


class _FullError(Exception):
    """A limit leaves no room for another attempt.

    Attributes:
        limit: which one: host, tenant or address.
        wait_s: seconds after which to ask again.
    """

    def __init__(self, limit: str, wait_s: float) -> None:
        self.limit, self.wait_s = limit, wait_s
        super().__init__(f"{limit}: {wait_s:.3f} s")


class Notifier(MailboxActor[WebhookJob]):
    """Takes webhooks that are due now."""

    name: ClassVar[str] = "notifier"
    jobs = WebhookJob

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        webhook = parts.settings.webhook
        self._waits = webhook.schedule or backoff.exponential(
            webhook.attempts, webhook.delay_ms / 1000
        )
        self._secrets = [secret.get_secret_value() for secret in webhook.secrets]
        self._limits = HostLimits()
        # No tenant and no address may have all attempts: a quarter is left to others, at least one.
        self._share = max(1, webhook.concurrency - max(1, webhook.concurrency // 4))
        self._attempts = FairSemaphore(webhook.concurrency, self._share)

    def mailbox(self) -> str:
        """Shared: any replica may deliver."""
        return NOTIFY

    def capacity(self) -> int:
        """More than there are attempts at a time: enough to find those of tenants that have few."""
        return _IN_HAND * self.parts.settings.webhook.concurrency

    async def handle(self, job: WebhookJob, facts: Facts) -> Verdict:  # noqa: ARG002
        """Make one attempt to deliver a webhook, if one is due and the limits have room for it.

        Twice is safe because each run first claims an attempt in the ledger: a crash between the
        POST and its record costs an attempt, and the next one has the same ``webhook-id``.
        """
        ledger = self.parts.ledger
        pending = await ledger.deliveries.pending(job.request_id)
        if pending is None:
            return Done(event="webhook.void")
        if pending.wait_s:
            return Later(job, pending.wait_s, event="webhook.early")
        made = pending.attempt - 1
        if made > len(self._waits):
            await ledger.deliveries.exhaust(job.request_id, made)
            self.parts.metrics.webhooks.labels(WebhookStatus.FAILED).inc()
            return Done(event="webhook.failed", fields={"post": made, "error": UNFINISHED})
        try:
            with contextlib.ExitStack() as entered:
                return await self._attempt_in_turn(job, pending, entered)
        except _FullError as full:
            await ledger.deliveries.put_off(job.request_id, pending.attempt, full.wait_s)
            fields = {"host": URL(pending.url).authority, "full": full.limit}
            return Later(job, full.wait_s, event="webhook.put_off", fields=fields)

    async def _attempt_in_turn(
        self, job: WebhookJob, pending: PendingDelivery, entered: contextlib.ExitStack
    ) -> Verdict:
        """Make an attempt when it is the tenant's turn.

        Raises:
            _FullError: the limit of the host, the tenant or the address is reached.
        """
        of_a_host = self.parts.settings.webhook.host_concurrency
        self._enter(entered, "host", URL(pending.url).authority, of_a_host)
        self._enter(entered, "tenant", pending.quota_tenant, self._share)
        async with self._attempts.hold(pending.quota_tenant):
            address = await self.parts.outbound.address(pending.url, pending.quota_tenant)
            if address:  # else the attempt fails, and says why
                self._enter(entered, "address", address, self._share)
            return await self._attempt(job, pending)

    def _enter(self, entered: contextlib.ExitStack, limit: str, whose: str, most: int) -> None:
        key = f"{limit} {whose}"
        if not self._limits.enter(key, most):
            raise _FullError(limit, self._limits.ask_again_s(key, time.monotonic()))
        entered.callback(self._limits.leave, key)

    async def _attempt(self, job: WebhookJob, pending: PendingDelivery) -> Verdict:
        timeout_s = self.parts.settings.webhook.timeout_s
        planned_s = backoff.next_wait_s(self._waits, pending.attempt) or 0.0
        delivery = await self.parts.ledger.deliveries.claim(
            job.request_id, pending.attempt, timeout_s + planned_s
        )
        if delivery is None:
            return Done(event="webhook.void")
        self.begin()
        outcome = await self._post(job, delivery, pending.quota_tenant)
        wait_s = self._wait_s(delivery, outcome)
        recorded = await self.parts.ledger.deliveries.record(
            job.request_id,
            delivery,
            http_status=outcome.status,
            latency_ms=outcome.latency_ms,
            error=outcome.error,
            next_wait_s=wait_s,
        )
        if not recorded and wait_s is not None:
            # It was erased meanwhile, or another replica tries it: nothing is to wait here.
            return Done(event="webhook.void")
        return self._verdict(job, delivery, outcome, wait_s)

    async def _post(self, job: WebhookJob, delivery: Delivery, quota_tenant: str) -> Outcome:
        event = event_type(RequestStatus(delivery.status["status"]))
        return await deliver(
            self.parts.outbound,
            delivery.url,
            message_id=message_id(job.request_id, delivery.cycle),
            body=payload(
                event,
                delivery.ended_at,
                delivery.status,
                cycle=delivery.cycle,
                links=links(job.request_id),
            ),
            secrets=[delivery.secret] if delivery.secret else self._secrets,
            headers=delivery.headers,
            timeout_s=self.parts.settings.webhook.timeout_s,
            tenant=quota_tenant,
        )

    def _wait_s(self, delivery: Delivery, outcome: Outcome) -> float | None:
        if outcome.is_final:
            return None
        return backoff.next_wait_s(
            self._waits,
            delivery.attempt,
            jitter=self.parts.settings.webhook.jitter,
            rand=random.random(),  # noqa: S311 - spreads retries, no secret
            retry_after_s=outcome.retry_after_s,
        )

    def _verdict(
        self, job: WebhookJob, delivery: Delivery, outcome: Outcome, wait_s: float | None
    ) -> Verdict:
        fields = {
            "post": delivery.attempt,
            "host": URL(delivery.url).authority,
            "status": outcome.status,
            "error": outcome.error,
            "latency_ms": outcome.latency_ms,
        } | ({"cause": outcome.cause} if outcome.cause else {})
        metrics = self.parts.metrics
        if wait_s is not None:
            metrics.webhook_attempts.labels("retried").inc()
            return Later(job, wait_s, event="webhook.retried", fields={**fields, "wait_s": wait_s})
        if outcome.error:
            metrics.webhook_attempts.labels("failed").inc()
            metrics.webhooks.labels(WebhookStatus.FAILED).inc()
            return Done(event="webhook.failed", fields=fields)
        metrics.webhook_attempts.labels("delivered").inc()
        metrics.webhooks.labels(WebhookStatus.DELIVERED).inc()
        return Done(event="webhook.delivered", fields=fields)

    async def give_up(self, job: WebhookJob, reason: str) -> None:
        """Record that the delivery failed; if it stayed pending, it would be dealt for ever."""
        self.log.error("webhook.given_up", reason=reason)
        await self.parts.ledger.deliveries.abandon(job.request_id)
        self.parts.metrics.webhooks.labels(WebhookStatus.FAILED).inc()
