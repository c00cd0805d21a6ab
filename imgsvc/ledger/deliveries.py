"""Webhooks: which are due, which replica makes an attempt, and what came of it.

An attempt is claimed, made and recorded by conditional updates that rely on each other, so they stand
in one file, though a long one. What clients and operators read of them is in ``delivery_log``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pymongo import ReturnDocument

from imgsvc.domain.model import WebhookStatus
from imgsvc.ledger.clocks import CLOCKS_AGREE, current_time, is_past
from imgsvc.ledger.delivery_log import LOG_LENGTH, UNFINISHED
from imgsvc.ledger.documents import ERASED, NOBODY, Document, is_erased
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import Store
from imgsvc.ledger.views import status_object


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """The next attempt to deliver a webhook."""

    attempt: int  # its number, from 1
    url: str
    wait_s: float  # until it may be made; 0 if that is now
    quota_tenant: str  # whose it is


@dataclass(frozen=True, slots=True)
class Delivery:
    """An attempt to deliver a webhook that this replica has claimed."""

    attempt: int
    at: datetime
    ended_at: datetime
    cycle: int  # of the request: which of its ends, from 1
    url: str
    status: Document
    secret: str | None = field(repr=False)
    headers: dict[str, str] = field(repr=False)


class Deliveries:
    """Webhooks, and the attempts to deliver them.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._requests = store.requests

    async def due(self, limit: int) -> dict[str, str]:
        """Requests whose webhook is due now: id -> id of the HTTP call that brought them.

        Args:
            limit: how many at most; a tenant that has none among these gets as many too.
        """
        wanted = {"webhook.status": WebhookStatus.PENDING, "erasing": None, **_due(current_time())}
        # Each moves its time when it is attempted or put off, so all get a turn.
        found = await self._store.oldest(
            wanted, {"callId": 1}, by="webhook.nextAt", whose="payer", limit=limit
        )
        return {each["_id"]: each["callId"] for each in found}

    async def pending(self, request_id: str) -> PendingDelivery | None:
        """The next attempt to deliver a request's webhook, or None if there is nothing to send."""
        with translated():
            found = await self._requests.find_one(
                {"_id": request_id}, {"webhook": 1, "payer": 1, **dict.fromkeys(ERASED, 1)}
            )
        if not found or is_erased(found) or not found["webhook"]:
            return None
        webhook, now = found["webhook"], current_time()
        if webhook["status"] != WebhookStatus.PENDING:
            return None
        wait_s = max(0.0, (webhook["nextAt"] - now).total_seconds())
        if webhook["setAt"] > now + CLOCKS_AGREE:
            wait_s = 0.0
        quota_tenant = found.get("payer", NOBODY)
        return PendingDelivery(webhook["attempts"] + 1, webhook["url"], wait_s, quota_tenant)

    async def put_off(self, request_id: str, attempt: int, wait_s: float) -> None:
        """Have an attempt wait that was not claimed yet.

        Args:
            request_id: whose webhook it is.
            attempt: its number, from 1.
            wait_s: seconds until it may be made.
        """
        with translated():
            await self._store.write(
                "put_off_delivery",
                self._requests.update_one,
                {
                    "_id": request_id,
                    "webhook.status": WebhookStatus.PENDING,
                    "webhook.attempts": attempt - 1,
                },
                {"$set": next_attempt(current_time(), wait_s)},
            )

    async def claim(self, request_id: str, attempt: int, lost_after_s: float) -> Delivery | None:
        """Count an attempt before it is made, so that no crash can exceed the limit.

        Until it is recorded, the log has it as ``UNFINISHED``. The next attempt is due only when
        this one must have been lost, so none is sent early, even if Redis loses its data.

        Args:
            request_id: whose webhook it is.
            attempt: its number, from 1.
            lost_after_s: seconds until another may be made if nothing is heard of this one.

        Returns:
            The attempt, or None if it is not due, or another replica has it.
        """
        now = current_time()
        entry = {
            "attempt": attempt,
            "at": now,
            "status": None,
            "latencyMs": None,
            "error": UNFINISHED,
        }
        with translated():
            found = await self._store.write(
                "claim_delivery",
                self._requests.find_one_and_update,
                {
                    "_id": request_id,
                    "webhook.status": WebhookStatus.PENDING,
                    "webhook.attempts": attempt - 1,
                    "erasing": None,
                    **_due(now),
                },
                {
                    "$set": {"webhook.attempts": attempt, **next_attempt(now, lost_after_s)},
                    "$push": {"webhook.log": {"$each": [entry], "$slice": -LOG_LENGTH}},
                },
                return_document=ReturnDocument.AFTER,
            )
        if not found:
            return None
        webhook = found["webhook"]
        return Delivery(
            attempt=attempt,
            at=now,
            ended_at=found["finishedAt"],
            cycle=found["cycle"],
            url=webhook["url"],
            status=status_object(found),
            secret=webhook["secret"],
            headers=webhook["headers"],
        )

    async def record(
        self,
        request_id: str,
        delivery: Delivery,
        *,
        http_status: int | None,
        latency_ms: int,
        error: str | None,
        next_wait_s: float | None,
    ) -> bool:
        """Write what came of an attempt.

        A success counts however late it is recorded; a failure only if no newer attempt was made.

        Args:
            request_id: whose webhook it is.
            delivery: the attempt as it was claimed.
            http_status: what the receiver answered, if it did.
            latency_ms: how long it took.
            error: why it does not count as delivered, or None if it does.
            next_wait_s: seconds until the next attempt; None if there is none.

        Returns:
            False if it does not matter any more, for example because the request was erased.
        """
        now = current_time()
        wanted: Document = {
            "_id": request_id,
            "webhook.status": WebhookStatus.PENDING,
            "finishedAt": delivery.ended_at,  # and not another end, after images were tried again
        }
        change: Document = {
            "updatedAt": now,
            "webhook.log.$[mine].status": http_status,
            "webhook.log.$[mine].latencyMs": latency_ms,
            "webhook.log.$[mine].error": error,
        }
        if error is None:
            change["webhook.status"] = WebhookStatus.DELIVERED
        else:
            wanted["webhook.attempts"] = delivery.attempt
            if next_wait_s is None:
                change["webhook.status"] = WebhookStatus.FAILED
            else:
                change |= next_attempt(now, next_wait_s)
        with translated():
            written = await self._store.write(
                "record_delivery",
                self._requests.update_one,
                wanted,
                {"$set": change},
                array_filters=[{"mine.attempt": delivery.attempt, "mine.at": delivery.at}],
            )
        return bool(written.matched_count)

    async def exhaust(self, request_id: str, attempts: int) -> None:
        """Give up a webhook whose last attempt was claimed by a replica that was lost.

        Args:
            request_id: whose webhook it is.
            attempts: how many were made.
        """
        with translated():
            await self._store.write(
                "exhaust_delivery",
                self._requests.update_one,
                {
                    "_id": request_id,
                    "webhook.status": WebhookStatus.PENDING,
                    "webhook.attempts": attempts,
                },
                {"$set": {"webhook.status": WebhookStatus.FAILED, "updatedAt": current_time()}},
            )

    async def replay(self, request_id: str) -> bool:
        """Send the webhook of an ended request once more: new attempts, the same id.

        Returns:
            False if the request has no webhook, or it is being delivered.
        """
        done = [WebhookStatus.DELIVERED, WebhookStatus.FAILED]
        now = current_time()
        with translated():
            written = await self._store.write(
                "replay_webhook",
                self._requests.update_one,
                {"_id": request_id, "webhook.status": {"$in": done}},
                {
                    "$set": {
                        "webhook.status": WebhookStatus.PENDING,
                        "webhook.attempts": 0,
                        "updatedAt": now,
                        **next_attempt(now, 0),
                    }
                },
            )
        return bool(written.matched_count)

    async def abandon(self, request_id: str) -> None:
        """Give up a webhook for reasons of our own."""
        with translated():
            await self._store.write(
                "abandon_webhook",
                self._requests.update_one,
                {"_id": request_id, "webhook.status": WebhookStatus.PENDING},
                {"$set": {"webhook.status": WebhookStatus.FAILED, "updatedAt": current_time()}},
            )


def next_attempt(now: datetime, wait_s: float) -> Document:
    """The fields of a webhook that say when it is attempted next, and by whose clock."""
    return {"webhook.nextAt": now + timedelta(seconds=wait_s), "webhook.setAt": now}


def _due(now: datetime) -> Document:
    return is_past("webhook.nextAt", "webhook.setAt", now)
