"""Erasing requests: which are to be erased, and what remains of them.

A request that is to be erased is hidden from its client at once. When its work has stopped, its
products are deleted, then its objects. Last, a tombstone replaces the request: whose it was, and when
it was erased. It keeps the request's key, so an upload that is late finds the key taken. Every step
may be repeated. Objects that the bucket refuses to delete are in ``refusals``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import ASCENDING

from imgsvc.domain.model import ENDED_REQUEST, Recipe
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.documents import NOBODY, Document
from imgsvc.ledger.journal import Journal
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.refusals import due_again
from imgsvc.ledger.sources import Sources, source_key
from imgsvc.ledger.store import Store


@dataclass(frozen=True, slots=True)
class Erasure:
    """The end of a request's data."""

    asked_at: datetime
    erased_at: datetime | None  # None: under way


class Erasures:
    """Requests that are being erased, or were.

    Args:
        store: the database.
        journal: forgets the uploads of erased requests.
        sources: forgets their results.
    """

    def __init__(self, store: Store, journal: Journal, sources: Sources) -> None:
        self._store = store
        self._requests = store.requests
        self._products = store.products
        self._journal = journal
        self._sources = sources

    async def ask(self, request_id: str) -> None:
        """Have a request erased, its running work stopped first; asked again, the first counts."""
        now = current_time()
        with translated():
            await self._store.write(
                "ask_to_erase",
                self._requests.update_one,
                {"_id": request_id, "erasing": None, "erasedAt": None},
                {"$set": {"erasing": now, "cancelling": now}, "$unset": {"refused": ""}},
            )

    async def find(self, request_id: str, tenant: str) -> Erasure | None:
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
        now = current_time()
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
                await self._store.write(
                    "expire",
                    self._requests.update_many,
                    {"_id": {"$in": ids[:limit]}, **ended},
                    {"$set": {"erasing": now}},
                )
        return ids[:limit]

    async def due(self, limit: int) -> list[str]:
        """Ids of requests that are to be erased and whose work has stopped, those asked first.

        After them come those that were refused before and are to be tried again.

        Args:
            limit: how many at most of either kind; a tenant that has none among these gets as many
                too.
        """
        wanted = {"erasing": {"$exists": True}, "status": {"$in": sorted(ENDED_REQUEST)}}
        found: list[Document] = []
        for kind, by in (({"refused": None}, "erasing"), (due_again(current_time()), "refused.at")):
            found += await self._store.oldest(
                {**wanted, **kind}, {}, by=by, whose="tenant", limit=limit
            )
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
                await self._sources.erase(sources, request_id)
                ids = [found["_id"] for found in page]
                await self._store.write(
                    "erase_products", self._products.delete_many, {"_id": {"$in": ids}}
                )
        return len(page)

    async def erase_request(self, request_id: str) -> None:
        """Replace a request that has neither products nor objects by a tombstone.

        Its journal entry is deleted before, so that repeating its upload makes a new request.
        """
        now = current_time()
        with translated():
            found = await self._requests.find_one(
                {"_id": request_id, "erasing": {"$exists": True}}, {"tenant": 1, "erasing": 1}
            )
            if not found:
                return
            await self._journal.erase(request_id)
            await self._store.write(
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
