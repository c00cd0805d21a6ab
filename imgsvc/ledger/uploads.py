"""Accepting uploads: writing a request and its products."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta

from pymongo import InsertOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import ImageStatus, RequestStatus, Subscription
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.documents import Document, is_erased
from imgsvc.ledger.duplicates import Duplicates
from imgsvc.ledger.image_refs import product_id
from imgsvc.ledger.journal import Journal
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.new_requests import NewProduct, NewRequest, new_request_id
from imgsvc.ledger.store import Store

_INSERT_BATCH = 1000
_DUPLICATE_KEY = 11000
_TRIES = 3  # so often may a request with the same key be erased while it is posted again


class Uploads:
    """Accepts what clients post.

    Args:
        store: the database.
        journal: knows which uploads are being written.
    """

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._requests = store.requests
        self._products = store.products
        self._journal = journal

    async def accept(self, new: NewRequest) -> str:
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
            if not new.idempotency:
                await self._withdraw(new.id)
            raise

    async def _write_all(self, new: NewRequest) -> str:
        for _ in range(_TRIES):
            opened = await self._journal.open_entry(new)
            await self._insert_products(opened)
            if await self._journal.is_whole(opened) and await self._insert_request(opened):
                return opened.id
            found = await self._journal.find_request(opened.id)
            if not found:
                break
            if not is_erased(found):
                return opened.id
            # The one that came first with its key was erased meanwhile.
            await self._store.write(
                "withdraw_products", self._products.delete_many, {"request": opened.id}
            )
            new = replace(new, id=new_request_id())
        raise ServiceError(ErrorCode.UNAVAILABLE, retry_after_s=1)

    async def _insert_products(self, new: NewRequest) -> None:
        options = new.recipe.model_dump(exclude_none=True)
        duplicates = Duplicates(new.products if new.share else [])
        for start in range(0, len(new.products), _INSERT_BATCH):
            batch = new.products[start : start + _INSERT_BATCH]
            inserts = [
                InsertOne(_product(new, start + i, product, options, duplicates))
                for i, product in enumerate(batch)
            ]
            try:
                await self._store.write(
                    "insert_products", self._products.bulk_write, inserts, ordered=False
                )
            except BulkWriteError as error:
                # What an earlier upload with the same key has written is as it should be.
                if any(e["code"] != _DUPLICATE_KEY for e in error.details["writeErrors"]):
                    raise

    async def _insert_request(self, new: NewRequest) -> bool:
        """Accept a request; False if an earlier upload with the same key did, or if it was erased."""
        now = current_time()
        try:
            await self._store.write(
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
        # If only the reply was lost, the request was written after all; but the client got a 503,
        # so it must not run. Should this fail too, nobody knows its id and nothing is lost;
        # products without a request go when the journal is swept.
        with contextlib.suppress(ServiceError), translated():
            await self._store.write(
                "withdraw_request", self._requests.delete_one, {"_id": request_id}
            )
            await self._store.write(
                "withdraw_products", self._products.delete_many, {"request": request_id}
            )


def _product(
    new: NewRequest, number: int, product: NewProduct, options: Document, duplicates: Duplicates
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
            {"url": url, "status": ImageStatus.PENDING, **duplicates.of(number, index)}
            for index, url in enumerate(product.input_urls)
        ],
    }


def _expiry(new: NewRequest, now: datetime) -> Document:
    """When a request is to be erased, if its client set a time."""
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
