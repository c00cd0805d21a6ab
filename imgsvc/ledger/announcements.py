"""Announcing the ends of requests: which are due, who makes an attempt, what came of it."""

from __future__ import annotations

from datetime import datetime

from pymongo import ASCENDING, ReturnDocument

from imgsvc.domain.model import WebhookStatus
from imgsvc.ledger.records import (
    ERASED,
    NOBODY,
    UNFINISHED,
    Delivery,
    Document,
    FailedWebhook,
    PendingDelivery,
    is_erased,
    iso,
    status_object,
)
from imgsvc.ledger.store import CLOCKS_AGREE, Store, scheduled, the_time, translated

_LOG_LENGTH = 100  # attempts that are remembered


class Announcements(Store):
    """Webhooks and their attempts."""

    async def due_webhooks(self, limit: int) -> dict[str, str]:
        """Finished requests whose announcement is due now: id -> id of the call they came with.

        Args:
            limit: how many at most; but whose requests are not among the oldest gets as many too.
        """
        wanted = {"webhook.status": WebhookStatus.PENDING, "erasing": None, **_due(the_time())}
        # Each moves its time when it is attempted or put off, so all get a turn.
        found = await self._oldest(
            wanted, {"callId": 1}, by="webhook.nextAt", whose="payer", limit=limit
        )
        return {each["_id"]: each["callId"] for each in found}

    async def pending_delivery(self, request_id: str) -> PendingDelivery | None:
        """The next attempt to announce a request's end, or None if there is nothing to send."""
        with translated():
            found = await self._requests.find_one(
                {"_id": request_id}, {"webhook": 1, "payer": 1, **dict.fromkeys(ERASED, 1)}
            )
        if not found or is_erased(found) or not found["webhook"]:
            return None
        webhook, now = found["webhook"], the_time()
        if webhook["status"] != WebhookStatus.PENDING:
            return None
        wait_s = max(0.0, (webhook["nextAt"] - now).total_seconds())
        if webhook["setAt"] > now + CLOCKS_AGREE:
            wait_s = 0.0
        quota_tenant = found.get("payer", NOBODY)
        return PendingDelivery(webhook["attempts"] + 1, webhook["url"], wait_s, quota_tenant)

    async def put_off_delivery(self, request_id: str, attempt: int, wait_s: float) -> None:
        """Have an attempt wait that was not claimed yet.

        Args:
            request_id: whose end is announced.
            attempt: its number, from 1.
            wait_s: seconds until it may be made.
        """
        with translated():
            await self._write(
                "put_off_delivery",
                self._requests.update_one,
                {
                    "_id": request_id,
                    "webhook.status": WebhookStatus.PENDING,
                    "webhook.attempts": attempt - 1,
                },
                {"$set": scheduled(the_time(), wait_s)},
            )

    async def claim_delivery(
        self, request_id: str, attempt: int, lost_after_s: float
    ) -> Delivery | None:
        """Count an attempt before it is made, so that no crash can exceed the limit.

        Until it is recorded it is in the log as ``UNFINISHED``, and the next one is due only when
        this one must have been lost: whatever Redis forgets meanwhile, nobody sends early.

        Args:
            request_id: whose end is announced.
            attempt: its number, from 1.
            lost_after_s: seconds until another may be made if nothing is heard of this one.

        Returns:
            The attempt, or None if it is not due, or somebody else has it.
        """
        now = the_time()
        entry = {
            "attempt": attempt,
            "at": now,
            "status": None,
            "latencyMs": None,
            "error": UNFINISHED,
        }
        with translated():
            found = await self._write(
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
                    "$set": {"webhook.attempts": attempt, **scheduled(now, lost_after_s)},
                    "$push": {"webhook.log": {"$each": [entry], "$slice": -_LOG_LENGTH}},
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

    async def record_delivery(
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

        A success ends the announcement whenever it is told; a failure speaks only for the newest
        attempt.

        Args:
            request_id: whose end was announced.
            delivery: the attempt as it was claimed.
            http_status: what the receiver answered, if it did.
            latency_ms: how long it took.
            error: why it does not count as delivered, or None if it does.
            next_wait_s: seconds until the next attempt; None if there is none.

        Returns:
            False if nobody waits for that any more, as of a request that was erased meanwhile.
        """
        now = the_time()
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
                change |= scheduled(now, next_wait_s)
        with translated():
            written = await self._write(
                "record_delivery",
                self._requests.update_one,
                wanted,
                {"$set": change},
                array_filters=[{"mine.attempt": delivery.attempt, "mine.at": delivery.at}],
            )
        return bool(written.matched_count)

    async def exhaust_delivery(self, request_id: str, attempts: int) -> None:
        """Give an announcement up whose last attempt was claimed by someone who never came back.

        Args:
            request_id: whose end was announced.
            attempts: how many were made.
        """
        with translated():
            await self._write(
                "exhaust_delivery",
                self._requests.update_one,
                {
                    "_id": request_id,
                    "webhook.status": WebhookStatus.PENDING,
                    "webhook.attempts": attempts,
                },
                {"$set": {"webhook.status": WebhookStatus.FAILED, "updatedAt": the_time()}},
            )

    async def replay_webhook(self, request_id: str) -> bool:
        """Announce an ended request once more, in a new cycle of attempts with the same id.

        Returns:
            False if there is nothing to announce, or the announcement is under way.
        """
        done = [WebhookStatus.DELIVERED, WebhookStatus.FAILED]
        now = the_time()
        with translated():
            written = await self._write(
                "replay_webhook",
                self._requests.update_one,
                {"_id": request_id, "webhook.status": {"$in": done}},
                {
                    "$set": {
                        "webhook.status": WebhookStatus.PENDING,
                        "webhook.attempts": 0,
                        "updatedAt": now,
                        **scheduled(now, 0),
                    }
                },
            )
        return bool(written.matched_count)

    async def abandon_webhook(self, request_id: str) -> None:
        """Give an announcement up for reasons of ours."""
        with translated():
            await self._write(
                "abandon_webhook",
                self._requests.update_one,
                {"_id": request_id, "webhook.status": WebhookStatus.PENDING},
                {"$set": {"webhook.status": WebhookStatus.FAILED, "updatedAt": the_time()}},
            )

    async def deliveries(self, request_id: str) -> Document | None:
        """The attempts to announce a request's end, and when the next one is to be made.

        Returns:
            ``attempts`` and ``nextAttemptAt``; None if there is no request.
        """
        with translated():
            found = await self._requests.find_one({"_id": request_id}, {"webhook": 1})
        if not found:
            return None
        webhook = found["webhook"] or {"status": None, "log": []}
        log = webhook["log"]
        under_way = bool(log) and log[-1]["error"] == UNFINISHED
        waits = webhook["status"] == WebhookStatus.PENDING and not under_way
        return {
            "attempts": [{**entry, "at": iso(entry["at"])} for entry in log],
            "nextAttemptAt": iso(webhook["nextAt"]) if waits else None,
        }

    async def failed_webhooks(
        self, since: datetime, until: datetime, limit: int
    ) -> list[FailedWebhook]:
        """Announcements that were given up in a time, those first that were so first."""
        with translated():
            cursor = self._requests.find(
                {
                    "webhook.status": WebhookStatus.FAILED,
                    "updatedAt": {"$gte": since, "$lte": until},
                },
                {"updatedAt": 1, "webhook": 1},
            )
            cursor = cursor.sort("updatedAt", ASCENDING).limit(limit)
            return [
                FailedWebhook(
                    request_id=found["_id"],
                    failed_at=found["updatedAt"],
                    url=found["webhook"]["url"],
                    attempts=found["webhook"]["attempts"],
                    error=log[-1]["error"] if (log := found["webhook"]["log"]) else None,
                )
                async for found in cursor
            ]


def _due(now: datetime) -> Document:
    """The condition that an announcement's time has come.

    A time that was set by a clock far ahead of ours tells nothing, and waiting for it could take
    as long as that clock was wrong; so it counts as come.
    """
    return {
        "$or": [
            {"webhook.nextAt": {"$lte": now}},
            {"webhook.setAt": {"$gt": now + CLOCKS_AGREE}},
        ]
    }
