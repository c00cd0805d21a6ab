"""Erasing requests: who is asked to go, what of them is left, and what is remembered.

A request that is to be erased is hidden from its client at once. When its work has stopped its
products go, then its objects, and last a tombstone takes the request's place: whose it was, and when
it went. It has the same key, so whoever is late with writing that request finds it taken. Every step
may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pymongo import ASCENDING

from imgsvc.ledger.records import Document, Erasure
from imgsvc.ledger.store import CLOCKS_AGREE, Store, product_id, the_time, translated
from imgsvc.model import ENDED_REQUEST


class Erasing(Store):
    """Erasures, and the sweeping up after cancelled and erased requests."""

    async def ask_to_erase(self, request_id: str) -> None:
        """Have a request erased, its running work stopped first; asked again, the first counts."""
        now = the_time()
        with translated():
            await self._write(
                "ask_to_erase",
                self._requests.update_one,
                {"_id": request_id, "erasing": None, "erasedAt": None},
                {"$set": {"erasing": now, "cancelling": now}},
            )

    async def erasure(self, request_id: str, tenant: str) -> Erasure | None:
        """How far the erasure of a tenant's request is; None if there is none, or no request."""
        with translated():
            found = await self._requests.find_one(
                {"_id": request_id, "tenant": tenant}, {"erasing": 1, "askedAt": 1, "erasedAt": 1}
            )
        if not found or not found.keys() & {"erasing", "erasedAt"}:
            return None
        return Erasure(found.get("askedAt") or found["erasing"], found.get("erasedAt"))

    async def expire(self, keep_days: float, limit: int) -> list[str]:
        """Have ended requests erased whose time is over.

        Args:
            keep_days: how long any request is kept; 0: for ever, unless it says otherwise.
            limit: how many at most.

        Returns:
            Their ids.
        """
        now = the_time()
        ended: Document = {"status": {"$in": sorted(ENDED_REQUEST)}, "erasing": None}
        kinds: list[tuple[str, datetime]] = [("expiresAt", now)]
        if keep_days:
            kinds.append(("createdAt", now - timedelta(days=keep_days)))
        with translated():
            ids: list[str] = []
            for field, until in kinds:
                cursor = self._requests.find({**ended, field: {"$lte": until}}, {"_id": 1})
                cursor = cursor.sort(field, ASCENDING).limit(limit)
                ids += [found["_id"] async for found in cursor]
            if ids:
                await self._write(
                    "expire",
                    self._requests.update_many,
                    {"_id": {"$in": ids[:limit]}, **ended},
                    {"$set": {"erasing": now}},
                )
        return ids[:limit]

    async def to_erase(self, limit: int) -> list[str]:
        """Ids of requests that are to be erased and whose work has stopped, those asked first."""
        with translated():
            cursor = self._requests.find(
                {"erasing": {"$exists": True}, "status": {"$in": sorted(ENDED_REQUEST)}},
                {"_id": 1},
            )
            cursor = cursor.sort("erasing", ASCENDING).limit(limit)
            return [found["_id"] async for found in cursor]

    async def erase_products(self, request_id: str, limit: int) -> int:
        """Delete products of a request; how many there were, ``limit`` at most."""
        with translated():
            cursor = self._products.find({"request": request_id}, {"_id": 1}).limit(limit)
            ids = [found["_id"] async for found in cursor]
            if ids:
                await self._write(
                    "erase_products", self._products.delete_many, {"_id": {"$in": ids}}
                )
        return len(ids)

    async def erase_request(self, request_id: str) -> None:
        """Put a tombstone in the place of a request that has neither products nor objects."""
        now = the_time()
        with translated():
            found = await self._requests.find_one(
                {"_id": request_id, "erasing": {"$exists": True}}, {"tenant": 1, "erasing": 1}
            )
            if not found:
                return
            await self._write(
                "erase_request",
                self._requests.replace_one,
                {"_id": request_id, "erasing": found["erasing"]},
                {
                    "tenant": found["tenant"],
                    "askedAt": found["erasing"],
                    "erasedAt": now,
                    "sweepFrom": now,
                },
            )

    async def to_sweep(self, ended_before: datetime, limit: int) -> dict[str, bool]:
        """Requests that may have left something behind: id -> whether erased, else cancelled.

        Args:
            ended_before: since when nothing can have been left any more.
            limit: how many at most.
        """
        with translated():
            cursor = self._requests.find(
                {
                    "$or": [
                        {"sweepFrom": {"$lte": ended_before}},
                        {"sweepFrom": {"$gt": the_time() + CLOCKS_AGREE}},
                    ]
                },
                {"erasedAt": 1},
            )
            cursor = cursor.sort("sweepFrom", ASCENDING).limit(limit)
            return {found["_id"]: "erasedAt" in found async for found in cursor}

    async def unwanted(self, request_id: str, objects: Sequence[str]) -> list[str]:
        """Which of these objects of a cancelled or erased request are no image's."""
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

    async def swept(self, request_id: str) -> None:
        """Say that nothing is left behind of a cancelled or erased request.

        If a clock far ahead of ours said when it ended, that may have been just now: then it is to
        be swept once more.
        """
        now = the_time()
        with translated():
            found = await self._requests.find_one({"_id": request_id}, {"sweepFrom": 1})
            if not found or "sweepFrom" not in found:
                return
            wrong = found["sweepFrom"] > now + CLOCKS_AGREE
            await self._write(
                "swept",
                self._requests.update_one,
                {"_id": request_id, "sweepFrom": found["sweepFrom"]},
                {"$set": {"sweepFrom": now}} if wrong else {"$unset": {"sweepFrom": ""}},
            )


def _product_of(name: str) -> str:
    """The key of the product whose image an object's name names."""
    request_id, _, image = name.partition("/")
    number = image.partition("-")[0]
    return product_id(request_id, int(number)) if number.isdecimal() else request_id
