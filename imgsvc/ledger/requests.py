"""What clients read of their requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from pymongo import ASCENDING, DESCENDING

from imgsvc.domain.model import OPEN_REQUEST
from imgsvc.ledger.documents import Document, is_erased
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import Store
from imgsvc.ledger.views import status_object

_READ_AT_ONCE = 500  # products
_EVER = datetime.fromtimestamp(0, UTC)


class Requests:
    """Requests, their products and their images.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._requests = store.requests
        self._products = store.products

    async def status(self, request_id: str, tenant: str) -> Document | None:
        """The status object of a tenant's request, or None if they have no such request."""
        with translated():
            found = await self._requests.find_one({"_id": request_id})
        if not found or found.get("tenant") != tenant or is_erased(found):
            return None
        return status_object(found)

    async def newest(
        self,
        tenant: str,
        *,
        status: str | None,
        created_after: datetime | None,
        created_before: datetime | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Document]:
        """Status objects, newest first.

        Args:
            tenant: whose requests.
            status: only requests in this status.
            created_after: only younger ones.
            created_before: only older ones.
            before: creation time and id of the last one seen.
            limit: how many at most.
        """
        # A tombstone has no time of creation: with this clause none is looked at.
        clauses: list[Document] = [{"tenant": tenant, "erasing": None, "createdAt": {"$gt": _EVER}}]
        if status:
            clauses.append({"status": status})
        if created_after:
            clauses.append({"createdAt": {"$gt": created_after}})
        if created_before:
            clauses.append({"createdAt": {"$lt": created_before}})
        if before:
            at, last = before
            # The first alone would do, but no bound of an index can be made of it.
            ties = {"$or": [{"createdAt": {"$lt": at}}, {"createdAt": at, "_id": {"$lt": last}}]}
            clauses += [ties, {"createdAt": {"$lte": at}}]
        with translated():
            cursor = self._requests.find({"$and": clauses})
            cursor = cursor.sort([("createdAt", DESCENDING), ("_id", DESCENDING)]).limit(limit)
            return [status_object(found) async for found in cursor]

    async def products(
        self, request_id: str, count: int, *, first: int = 0, with_status: str | None = None
    ) -> AsyncIterator[Document]:
        """The products of a request in input order, streamed.

        Args:
            request_id: whose products.
            count: how many it has.
            first: the number of the first one wanted.
            with_status: only products that have an image in this status.
        """
        # By ranges of numbers: not every MongoDB begins to answer before it has sorted them all.
        for start in range(first, count, _READ_AT_ONCE):
            numbers = {"$gte": start, "$lt": start + _READ_AT_ONCE}
            with translated():
                cursor = self._products.find({"request": request_id, "n": numbers})
                page = [found async for found in cursor.sort("n", ASCENDING)]
            for found in page:
                if not with_status or _has(found, with_status):
                    yield found

    async def image_ends(self, request_id: str, products: int) -> AsyncIterator[list[Document]]:
        """What became of the images of a request so far, in any order.

        Args:
            request_id: whose images.
            products: how many are read at once; each gives a list.
        """
        wanted = ("url", "status", "error.code", "bytesIn", "bytesOut", "format", "ms")
        fields: Document = {f"images.{field}": 1 for field in wanted}
        with translated():
            async for found in self._products.find({"request": request_id}, fields).batch_size(
                products
            ):
                yield found["images"]

    async def count_in_flight(self, quota_tenant: str) -> tuple[int, int]:
        """Images that accepted requests still wait for: all, and those of one tenant."""
        with translated():
            cursor = self._requests.aggregate(
                [
                    {"$match": {"status": {"$in": sorted(OPEN_REQUEST)}}},
                    {
                        "$group": {
                            "_id": {"$eq": ["$payer", quota_tenant]},
                            "total": {"$sum": "$totalImages"},
                            "done": {"$sum": "$processedImages"},
                        }
                    },
                ]
            )
            waiting = {row["_id"]: max(0, row["total"] - row["done"]) async for row in cursor}
        return sum(waiting.values()), waiting.get(True, 0)


def _has(product: Document, status: str) -> bool:
    return any(image["status"] == status for image in product["images"])
