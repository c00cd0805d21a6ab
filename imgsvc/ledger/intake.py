"""Taking requests in, and telling about them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pymongo import ASCENDING, DESCENDING, InsertOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import OPEN_REQUEST, ImageStatus, RequestStatus, Subscription
from imgsvc.ledger.copies import Copies
from imgsvc.ledger.journal import Journal
from imgsvc.ledger.records import (
    Document,
    NewProduct,
    NewRequest,
    is_erased,
    new_request_id,
    status_object,
)
from imgsvc.ledger.store import product_id, the_time, translated

_INSERT_BATCH = 1000
_READ_AT_ONCE = 500  # products
_DUPLICATE_KEY = 11000
_TRIES = 3  # so often may a request with the same key be erased while it is posted again
_EVER = datetime.fromtimestamp(0, UTC)


class Intake(Journal):
    """Requests as clients post them and ask for them."""

    async def insert(self, new: NewRequest) -> str:
        """Write a request: its products, then itself, which is the moment it is accepted.

        Returns:
            Its id: that of the upload that came first with its key, if it carries one.

        Raises:
            ServiceError: UNAVAILABLE; then there is no request, unless the upload carries a key:
                then it is there at the latest when the upload is repeated. IDEMPOTENCY_CONFLICT
                if the key came with another upload before.
        """
        try:
            with translated():
                return await self._write_all(new)
        except ServiceError:
            if not new.repeat:
                await self._withdraw(new.id)
            raise

    async def _write_all(self, new: NewRequest) -> str:
        for _ in range(_TRIES):
            opened = await self._open_entry(new)
            await self._insert_products(opened)
            if await self._is_whole(opened) and await self._insert_request(opened):
                return opened.id
            found = await self._accepted(opened.id)
            if not found:
                break
            if not is_erased(found):
                return opened.id
            # The one that came first with its key was erased meanwhile.
            await self._write(
                "withdraw_products", self._products.delete_many, {"request": opened.id}
            )
            new = replace(new, id=new_request_id())
        raise ServiceError(ErrorCode.UNAVAILABLE, retry_after_s=1)

    async def _insert_products(self, new: NewRequest) -> None:
        options = new.recipe.model_dump(exclude_none=True)
        copies = Copies(new.products if new.share else [])
        for start in range(0, len(new.products), _INSERT_BATCH):
            batch = new.products[start : start + _INSERT_BATCH]
            inserts = [
                InsertOne(_product(new, start + i, product, options, copies))
                for i, product in enumerate(batch)
            ]
            try:
                await self._write(
                    "insert_products", self._products.bulk_write, inserts, ordered=False
                )
            except BulkWriteError as error:
                # What an earlier upload with the same key has written is as it should be.
                if any(e["code"] != _DUPLICATE_KEY for e in error.details["writeErrors"]):
                    raise

    async def _insert_request(self, new: NewRequest) -> bool:
        """Accept a request; False if an earlier upload with the same key did, or if it was erased."""
        now = the_time()
        try:
            await self._write(
                "insert_request",
                self._requests.insert_one,
                {
                    "_id": new.id,
                    "callId": new.call_id,
                    "tenant": new.tenant,
                    "payer": new.quota_tenant,
                    "status": RequestStatus.PENDING,
                    "options": new.recipe.model_dump(exclude_none=True),
                    "totalProducts": len(new.products),
                    "totalImages": new.total_images,
                    "processedProducts": 0,
                    "processedImages": 0,
                    "failedImages": 0,
                    "bytesIn": 0,
                    "bytesOut": 0,
                    "sharedImages": 0,
                    "reusedImages": 0,
                    "createdAt": now,
                    "updatedAt": now,
                    "cycle": 1,
                    "reopen": None,
                    "webhook": _new_webhook(new.webhook),
                    **_expiry(new, now),
                },
            )
        except DuplicateKeyError:
            return False
        return True

    async def _withdraw(self, request_id: str) -> None:
        # A lost reply may mean that the request was written after all; as the client was told
        # 503, it must not run. Should this fail too, nobody knows its id and nothing is lost;
        # products without a request go when the journal is swept.
        with contextlib.suppress(ServiceError), translated():
            await self._write("withdraw_request", self._requests.delete_one, {"_id": request_id})
            await self._write(
                "withdraw_products", self._products.delete_many, {"request": request_id}
            )

    async def status(self, request_id: str, tenant: str) -> Document | None:
        """The status object of a tenant's request, or None if they have no such request."""
        with translated():
            found = await self._requests.find_one({"_id": request_id})
        if not found or found.get("tenant") != tenant or is_erased(found):
            return None
        return status_object(found)

    async def requests(
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

    async def ends(self, request_id: str, products: int) -> AsyncIterator[list[Document]]:
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


def _product(
    new: NewRequest, number: int, product: NewProduct, options: Document, copies: Copies
) -> Document:
    return {
        "_id": product_id(new.id, number),
        "request": new.id,
        "tenant": new.tenant,
        "payer": new.quota_tenant,
        "n": number,
        "serialNumber": product.serial_number,
        "productName": product.product_name,
        "options": options,
        "open": len(product.input_urls),
        "closed": False,
        "images": [
            {"url": url, "status": ImageStatus.PENDING, **copies.of(number, index)}
            for index, url in enumerate(product.input_urls)
        ],
    }


def _expiry(new: NewRequest, now: datetime) -> Document:
    """When a request is to be erased, if its client said so."""
    days = new.expires_in_days
    return {} if days is None else {"expiresAt": now + timedelta(days=days)}


def _new_webhook(wanted: Subscription | None) -> Document | None:
    if not wanted:
        return None
    return {
        "url": wanted.url,
        "events": [str(event) for event in wanted.events],
        "secret": wanted.secret.get_secret_value() if wanted.secret else None,
        "headers": {name: value.get_secret_value() for name, value in wanted.headers.items()},
        "status": None,
        "attempts": 0,
        "log": [],
    }
