"""Erasing requests: who is asked to go, what of them is left, and what is remembered.

A request that is to be erased is hidden from its client at once. When its work has stopped its
products go, then its objects, and last a tombstone takes the request's place: whose it was, and when
it went. It has the same key, so whoever is late with writing that request finds it taken. Every step
may be repeated. What the bucket refuses to let go is in ``refusals``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from pymongo import ASCENDING

from imgsvc.domain.model import ENDED_REQUEST, Recipe
from imgsvc.ledger.records import NOBODY, Document, Erasure
from imgsvc.ledger.refusals import Refusals, due_again
from imgsvc.ledger.sources import source_key
from imgsvc.ledger.store import CLOCKS_AGREE, product_id, the_time, translated


class Erasing(Refusals):
    """Erasures, and the sweeping up after cancelled and erased requests."""

    async def ask_to_erase(self, request_id: str) -> None:
        """Have a request erased, its running work stopped first; asked again, the first counts."""
        now = the_time()
        with translated():
            await self._write(
                "ask_to_erase",
                self._requests.update_one,
                {"_id": request_id, "erasing": None, "erasedAt": None},
                {"$set": {"erasing": now, "cancelling": now}, "$unset": {"refused": ""}},
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
        """Ids of requests that are to be erased and whose work has stopped, those asked first.

        Behind them come those that were refused before, and are to be tried again.

        Args:
            limit: how many at most of either kind; but whose requests are not among the first gets
                as many too.
        """
        wanted = {"erasing": {"$exists": True}, "status": {"$in": sorted(ENDED_REQUEST)}}
        found: list[Document] = []
        for kind, by in (({"refused": None}, "erasing"), (due_again(the_time()), "refused.at")):
            found += await self._oldest({**wanted, **kind}, {}, by=by, whose="tenant", limit=limit)
        return [each["_id"] for each in found]

    async def erase_products(self, request_id: str, limit: int) -> int:
        """Delete products of a request, and what is remembered of its sources.

        Args:
            request_id: of an erased request, or one whose work has stopped.
            limit: how many at most.

        Returns:
            How many products there were.
        """
        fields = {"tenant": 1, "options": 1, "images.url": 1}
        with translated():
            cursor = self._products.find({"request": request_id}, fields).limit(limit)
            page = [found async for found in cursor]
            if page:
                sources = await asyncio.to_thread(_sources_of, page)
                of_this = {"$regex": f"^{re.escape(request_id)}/"}
                await self._write(
                    "erase_sources",
                    self._sources.delete_many,
                    {"_id": {"$in": sources}, "end.output": of_this},
                )
                ids = [found["_id"] for found in page]
                await self._write(
                    "erase_products", self._products.delete_many, {"_id": {"$in": ids}}
                )
        return len(page)

    async def erase_request(self, request_id: str) -> None:
        """Put a tombstone in the place of a request that has neither products nor objects.

        Its entry in the journal goes before: who repeats its upload makes a new request.
        """
        now = the_time()
        with translated():
            found = await self._requests.find_one(
                {"_id": request_id, "erasing": {"$exists": True}}, {"tenant": 1, "erasing": 1}
            )
            if not found:
                return
            await self._write("erase_entry", self._intakes.delete_many, {"request": request_id})
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
            limit: how many at most, and as many that were refused before.
        """
        now = the_time()
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
                {"$set": {"sweepFrom": now}}
                if wrong
                else {"$unset": {"sweepFrom": "", "refused": ""}},
            )


def _sources_of(products: Sequence[Document]) -> list[str]:
    """The keys under which the sources of these products may be remembered."""
    return sorted(
        {
            source_key(product.get("tenant", NOBODY), image["url"], recipe)
            for product in products
            for recipe in [Recipe(**product["options"])]
            for image in product["images"]
        }
    )


def _product_of(name: str) -> str:
    """The key of the product whose image an object's name names."""
    request_id, _, image = name.partition("/")
    number = image.partition("-")[0]
    return product_id(request_id, int(number)) if number.isdecimal() else request_id
