"""Ends requests, and counts what became of their images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from pymongo import DESCENDING

from imgsvc.domain.model import (
    CANCEL,
    END,
    OPEN_REQUEST,
    ImageStatus,
    RequestStatus,
    WebhookStatus,
    event_type,
    outcome,
)
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.deliveries import next_attempt
from imgsvc.ledger.documents import Document, allowed
from imgsvc.ledger.image_refs import product_id
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.recent import Recent
from imgsvc.ledger.store import Store

FEW_PRODUCTS = 16  # to count them is as quick as to look for an open one


class Closing(NamedTuple):
    """What came of trying to end a request."""

    ended: bool  # by us
    due: bool  # its webhook, by this


_GOES_ON = Closing(ended=False, due=False)


class Completion:
    """The ends of requests.

    Args:
        store: the database.
        on_ended: called with the status in which a request has ended, by the replica that ended it.
    """

    def __init__(self, store: Store, on_ended: Callable[[RequestStatus], None]) -> None:
        self._store = store
        self._requests = store.requests
        self._products = store.products
        self._on_ended = on_ended
        # By request: a product that was open, the last one if possible. While it still is, there is
        # no need to look for others, which takes long in a large request.
        self._open_products = Recent[str]()

    def known_open(self, request_ids: Iterable[str]) -> set[str]:
        """Keys of products that were open when these requests were looked at last."""
        return {key for each in request_ids if (key := self._open_products.get(each))}

    async def _totals(self, request_id: str) -> tuple[Document, int]:
        """The true counters of a request's images, and how many are open."""
        cursor = self._products.aggregate(
            [
                {"$match": {"request": request_id}},
                {"$unwind": "$images"},
                {
                    "$group": {
                        "_id": "$images.status",
                        "images": {"$sum": 1},
                        "bytesIn": {"$sum": "$images.bytesIn"},
                        "bytesOut": {"$sum": "$images.bytesOut"},
                        "shared": {"$sum": "$images.shared"},
                        "reused": {"$sum": "$images.reused"},
                    }
                },
            ]
        )
        rows = {row["_id"]: row async for row in cursor}
        open_ = rows.pop(ImageStatus.PENDING, {}).get("images", 0)
        return {
            "processedImages": sum(row["images"] for row in rows.values()),
            "failedImages": rows.get(ImageStatus.FAILED, {}).get("images", 0),
            "bytesIn": sum(row["bytesIn"] for row in rows.values()),
            "bytesOut": sum(row["bytesOut"] for row in rows.values()),
            "sharedImages": sum(row["shared"] for row in rows.values()),
            "reusedImages": sum(row["reused"] for row in rows.values()),
        }, open_

    async def recount(self, request_id: str, now: datetime) -> None:
        """Count anew what became of the images of a request that has not ended.

        Raises:
            PyMongoError: it could not be done.
        """
        totals, _ = await self._totals(request_id)
        ended = await self._products.count_documents({"request": request_id, "open": 0})
        await self._store.write(
            "recount",
            self._requests.update_one,
            {"_id": request_id, "status": {"$in": sorted(OPEN_REQUEST)}},
            {"$set": {**totals, "processedProducts": ended, "updatedAt": now}},
        )

    async def complete(self, request_id: str) -> bool:
        """End a request none of whose products is open; True if its webhook is due by this."""
        with translated():
            return (await self.try_to_end(request_id)).due

    async def try_to_end(self, request_id: str) -> Closing:
        """End a request none of whose products is open.

        Raises:
            PyMongoError: it could not be done.
        """
        fields = ("status", "webhook", "cancelling", "reopen", "reopens", "totalProducts")
        found = await self._requests.find_one({"_id": request_id}, dict.fromkeys(fields, 1))
        if not found or found.get("status") not in CANCEL.sources or found.get("reopen"):
            return _GOES_ON
        # The request ends only if its images are looked at after it was read, and no command has
        # come since: an earlier look may have missed images that were opened again.
        products = found["totalProducts"]
        if products > FEW_PRODUCTS and await self._has_open(request_id, products):
            return _GOES_ON
        totals, open_ = await self._totals(request_id)
        if open_:
            return _GOES_ON
        now = current_time()
        unchanged = {key: found.get(key) for key in ("cancelling", "reopens")}
        if found.get("cancelling"):
            step, status = CANCEL, RequestStatus.CANCELLED
            swept: Document = {"sweepFrom": now}
        else:
            step, status = END, outcome(totals["processedImages"], totals["failedImages"])
            swept = {}
        webhook = _due_webhook(found["webhook"], status, now)
        totals["processedProducts"] = products
        change = {**totals, "status": status, "updatedAt": now, "finishedAt": now}
        written = await self._store.write(
            "complete",
            self._requests.update_one,
            {"_id": request_id, **allowed(step), "reopen": None, **unchanged},
            {"$set": {**change, **webhook, **swept}, "$unset": {"cancelling": ""}},
        )
        ended = bool(written.matched_count)
        if ended:
            self._on_ended(status)
        return Closing(ended=ended, due=ended and bool(webhook))

    async def _has_open(self, request_id: str, products: int) -> bool:
        last = product_id(request_id, products - 1)
        found = await self._products.find_one({"_id": last}, {"open": 1})
        if not found or not found["open"]:  # then few are: images are dealt in order
            found = await self._products.find_one(
                {"request": request_id, "open": {"$gt": 0}}, {"_id": 1}, sort=[("n", DESCENDING)]
            )
        self._open_products.forget(request_id)
        if found:
            self._open_products.put(request_id, found["_id"])
        return bool(found)


def _due_webhook(webhook: Document | None, status: RequestStatus, now: datetime) -> Document:
    """The change that makes a request's webhook due, if its client asked for this event."""
    if not webhook or event_type(status) not in webhook["events"]:
        return {}
    return {"webhook.status": WebhookStatus.PENDING, **next_attempt(now, 0)}
