"""What became of webhooks: the attempts of each, and which have failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pymongo import ASCENDING

from imgsvc.domain.model import WebhookStatus
from imgsvc.ledger.documents import Document
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import Store
from imgsvc.ledger.views import iso

LOG_LENGTH = 100  # attempts that are remembered
UNFINISHED = "UNFINISHED"  # an attempt that is under way, or was lost with its replica


@dataclass(frozen=True, slots=True)
class FailedWebhook:
    """A webhook that was given up."""

    request_id: str
    failed_at: datetime
    url: str
    attempts: int
    error: str | None  # of the last attempt


class DeliveryLog:
    """The attempts to deliver webhooks.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._requests = store.requests

    async def attempts(self, request_id: str) -> Document | None:
        """The attempts to deliver a request's webhook, and when the next one is due.

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

    async def failed(self, since: datetime, until: datetime, limit: int) -> list[FailedWebhook]:
        """Webhooks that were given up between two times, the oldest first."""
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
