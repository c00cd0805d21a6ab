"""Commands to a request that is already there: try failed images again, or cancel.

A command is first written down, by one conditional update of the request. While it stands, the
request cannot end as if nobody had asked. The dealer carries it out, some products at a time.

Carrying out a command twice, or late, is safe. Each retry of a request has a number. A product
remembers the number of the last retry that opened its images, so a retry opens them once. Nothing
opens a cancelled image again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from pymongo import ASCENDING, UpdateOne

from imgsvc.domain.model import (
    CANCEL,
    CANCEL_IMAGE,
    ENDED_REQUEST,
    OPEN_REQUEST,
    REOPEN,
    REOPEN_IMAGE,
    ImageStatus,
    RequestStatus,
)
from imgsvc.ledger.choices import Choice, products_with
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.completion import Completion
from imgsvc.ledger.documents import Document, allowed
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import Store

_PRODUCTS = 200  # changed at once


class Commands:
    """Commands to requests, and how they are carried out.

    Args:
        store: the database.
        completion: ends requests, and counts anew.
    """

    def __init__(self, store: Store, completion: Completion) -> None:
        self._store = store
        self._requests = store.requests
        self._products = store.products
        self._completion = completion

    async def retry(self, request_id: str, choice: Choice, images: int) -> bool:
        """Have failed images of an ended request tried again; its webhook will be sent again at the end.

        Args:
            request_id: which request.
            choice: which of its failed images.
            images: how many that is; they count as open from now on.

        Returns:
            False if there is no such request, or it is in no state for this.
        """
        sources = REOPEN.sources & ENDED_REQUEST
        return await self._retry(request_id, choice, sources, images)

    async def retry_image(self, request_id: str, product: int, index: int) -> bool:
        """Have one failed image tried again, also while its request still runs.

        Returns:
            False if there is no such request, or it is in no state for this.
        """
        choice = Choice(images=[(product, index)])
        return await self._retry(request_id, choice, REOPEN.sources)

    async def _retry(
        self, request_id: str, choice: Choice, sources: Collection[RequestStatus], images: int = 0
    ) -> bool:
        free: Document = {"reopen": None, "cancelling": None, "erasing": None}
        with translated():
            found = await self._requests.find_one(
                {"_id": request_id, "status": {"$in": sorted(sources)}, **free}
            )
            if not found:
                return False
            number = found.get("reopens", 0) + 1
            change: Document = {
                "reopen": {"n": number, "after": -1, **asdict(choice)},
                "reopens": number,
                "updatedAt": current_time(),
            }
            if found["status"] in ENDED_REQUEST:
                change |= {
                    "status": RequestStatus.PROCESSING,
                    "finishedAt": None,
                    "cycle": found["cycle"] + 1,
                }
                if found["webhook"]:
                    change |= {"webhook.status": None, "webhook.attempts": 0}
            written = await self._store.write(
                "reopen",
                self._requests.update_one,
                {
                    "_id": request_id,
                    "status": found["status"],
                    "reopens": found.get("reopens"),
                    **free,
                },
                # A quota is asked before the dealer has opened them, and counted them anew.
                {"$set": change, "$inc": {"processedImages": -images, "failedImages": -images}},
            )
        return bool(written.matched_count)

    async def pending_retries(self, limit: int) -> list[str]:
        """Ids of requests with images that are to be worked on again.

        Args:
            limit: how many at most; a tenant that has none among these gets as many too.
        """
        wanted = {"reopen.n": {"$gt": 0}}
        found = await self._store.oldest(wanted, {}, by="reopen.n", whose="payer", limit=limit)
        return [each["_id"] for each in found]

    async def carry_out_retry(self, request_id: str) -> bool:
        """Carry out a part of a request's retry, if it has one.

        Returns:
            Whether more of it is left.
        """
        with translated():
            found = await self._requests.find_one({"_id": request_id}, {"reopen": 1})
            retry = found["reopen"] if found else None
            if not retry:
                return False
            mine = {"_id": request_id, "reopen.n": retry["n"]}
            fresh = {"n": {"$gt": retry["after"]}, **_not_yet(retry)}
            cursor = self._products.find(
                {"$and": [products_with(request_id, retry), fresh]},
                {"n": 1, "images.status": 1, "images.error.code": 1},
            )
            page = [each async for each in cursor.sort("n", ASCENDING).limit(_PRODUCTS)]
            if page:
                await self._store.write(
                    "reopen_images",
                    self._products.bulk_write,
                    [_reopen_product(product, retry) for product in page],
                    ordered=False,
                )
            if len(page) == _PRODUCTS:
                step = {"reopen.after": page[-1]["n"]}
                await self._store.write(
                    "reopened_some", self._requests.update_one, mine, {"$set": step}
                )
                return True
            await self._completion.recount(request_id, current_time())
            await self._store.write(
                "reopened", self._requests.update_one, mine, {"$set": {"reopen": None}}
            )
        return False

    async def cancel(self, request_id: str) -> None:
        """Have a request end as soon as it can; does nothing if it has ended, or was cancelled before."""
        now = current_time()
        with translated():
            await self._store.write(
                "ask_to_cancel",
                self._requests.update_one,
                {"_id": request_id, **allowed(CANCEL), "cancelling": None},
                {"$set": {"cancelling": now, "updatedAt": now}},
            )

    async def pending_cancellations(self, limit: int) -> list[str]:
        """Ids of requests that are to end, those asked first.

        Args:
            limit: how many at most; a tenant that has none among these gets as many too.
        """
        wanted = {"cancelling": {"$exists": True}, "status": {"$in": sorted(OPEN_REQUEST)}}
        found = await self._store.oldest(wanted, {}, by="cancelling", whose="payer", limit=limit)
        return [each["_id"] for each in found]

    async def carry_out_cancellation(self, request_id: str) -> bool:
        """Carry out a part of a request's cancellation, if it has one.

        Returns:
            Whether more of it is left.
        """
        with translated():
            found = await self._requests.find_one(
                {"_id": request_id, **allowed(CANCEL), "cancelling": {"$ne": None}}, {"_id": 1}
            )
            if not found:
                return False
            cursor = self._products.find({"request": request_id, "open": {"$gt": 0}}, {"_id": 1})
            ids = [each["_id"] async for each in cursor.limit(_PRODUCTS)]
            if ids:
                await self._store.write(
                    "cancel_images",
                    self._products.update_many,
                    {"_id": {"$in": ids}},
                    {
                        "$set": {
                            "images.$[open].status": ImageStatus.CANCELLED,
                            "open": 0,
                            "closed": True,
                        }
                    },
                    array_filters=[allowed(CANCEL_IMAGE, "open.status")],
                )
            if len(ids) == _PRODUCTS:
                return True
            await self._completion.try_to_end(request_id)
        return False


def _not_yet(retry: Document) -> Document:
    """The condition that a product was not opened for this retry, or a later one."""
    return {"reopened": {"$not": {"$gte": retry["n"]}}}


def _reopen_product(product: Document, retry: Document) -> UpdateOne:
    """Open the failed images that the retry is about, and remember the retry in any case."""
    codes, named = retry["codes"], retry["images"]
    indexes = [
        i
        for i, image in enumerate(product["images"])
        if image["status"] == ImageStatus.FAILED
        and (codes is None or image["error"]["code"] in codes)
        and (named is None or [product["n"], i] in named)
    ]
    wanted: Document = {"_id": product["_id"], **_not_yet(retry)}
    change: Document = {"reopened": retry["n"]}
    for i in indexes:
        wanted |= allowed(REOPEN_IMAGE, f"images.{i}.status")
        change |= {f"images.{i}.status": ImageStatus.PENDING, f"images.{i}.turn": retry["n"]}
    if not indexes:
        return UpdateOne(wanted, {"$set": change})
    return UpdateOne(
        wanted,
        {
            "$set": {**change, "closed": False},
            "$unset": {f"images.{i}.{field}": "" for i in indexes for field in ("error", "ms")},
            "$inc": {"open": len(indexes)},
        },
    )
