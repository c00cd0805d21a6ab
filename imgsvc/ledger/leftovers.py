"""Objects that cancelled and erased requests may have left in the bucket.

Work that was under way when a request ended may store an object after that. So each such request is
swept once nothing can be under way any more, and what no image names is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo import ASCENDING

from imgsvc.ledger.clocks import CLOCKS_AGREE, current_time
from imgsvc.ledger.documents import Document
from imgsvc.ledger.image_refs import product_id
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.refusals import due_again
from imgsvc.ledger.store import Store


class Leftovers:
    """Cancelled and erased requests whose objects may not all be gone.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._requests = store.requests
        self._products = store.products

    async def due(self, ended_before: datetime, limit: int) -> dict[str, bool]:
        """Requests that may have left something behind: id -> whether erased, else cancelled.

        Args:
            ended_before: since when nothing can have been left any more.
            limit: how many at most, and as many that were refused before.
        """
        now = current_time()
        ended: Document = {
            "$or": [
                {"sweepFrom": {"$lte": ended_before}},
                {"sweepFrom": {"$gt": now + CLOCKS_AGREE}},
            ]
        }
        again: Document = {"sweepFrom": {"$exists": True}, **due_again(now)}
        found: dict[str, bool] = {}
        with translated():
            for wanted, by in (({"refused": None, **ended}, "sweepFrom"), (again, "refused.at")):
                cursor = self._requests.find(wanted, {"erasedAt": 1}).sort(by, ASCENDING)
                found |= {each["_id"]: "erasedAt" in each async for each in cursor.limit(limit)}
        return found

    async def unwanted(self, request_id: str, objects: Sequence[str]) -> list[str]:
        """Which of these objects of a cancelled or erased request belong to no image."""
        with translated():
            cursor = self._products.find(
                {"_id": {"$in": sorted({_product_of(name) for name in objects})}},
                {"images.output": 1},
            )
            named = {image.get("output") async for each in cursor for image in each["images"]}
            left = [name for name in objects if name not in named]
            if left:
                # An object may serve several images: any product of the request may name it.
                cursor = self._products.find(
                    {"request": request_id, "images.output": {"$in": left}}, {"images.output": 1}
                )
                named = {image.get("output") async for each in cursor for image in each["images"]}
        return [name for name in left if name not in named]

    async def mark_swept(self, request_id: str) -> None:
        """Say that nothing is left behind of a cancelled or erased request.

        If its end was dated by a clock far ahead of ours, it may have ended just now: then it is
        to be swept once more.
        """
        now = current_time()
        with translated():
            found = await self._requests.find_one({"_id": request_id}, {"sweepFrom": 1})
            if not found or "sweepFrom" not in found:
                return
            wrong = found["sweepFrom"] > now + CLOCKS_AGREE
            await self._store.write(
                "swept",
                self._requests.update_one,
                {"_id": request_id, "sweepFrom": found["sweepFrom"]},
                {"$set": {"sweepFrom": now}}
                if wrong
                else {"$unset": {"sweepFrom": "", "refused": ""}},
            )


def _product_of(name: str) -> str:
    """The key of the product whose image an object's name names."""
    request_id, _, image = name.partition("/")
    number = image.partition("-")[0]
    return product_id(request_id, int(number)) if number.isdecimal() else request_id
