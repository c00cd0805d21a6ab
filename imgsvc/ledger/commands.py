"""What clients and operators want of a request that is there: work on it again, or stop.

A wish is one conditional update of the request. While it stands the request cannot end as if
nobody had wished, and the dealer carries it out: some products at a time, and again if need be.

Carrying out is safe however late it comes. A wish to work on images again has a number, which
each product it concerns remembers, so that it is opened once for each wish. What has been cancelled
nothing opens again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

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
    SerialNumber,
)
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.completion import Completion
from imgsvc.ledger.documents import Document, allowed
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import Store

_PRODUCTS = 200  # changed at once
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failed images are to be worked on again; what is None chooses all."""

    codes: Sequence[str] | None = None  # they failed with one of these
    products: Sequence[int | str] | None = None  # by number, or by serial number as a text
    images: Sequence[tuple[int, int]] | None = None  # product and index of each


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

    async def resolve_products(
        self, request_id: str, names: Sequence[SerialNumber], total_products: int
    ) -> list[SerialNumber]:
        """Products of a request as ``Choice`` names them, from how a client does.

        An integer is a serial number if a product of the request has it as an integer, else a
        product's number if there are so many, else a serial number again: one that is a text.
        """
        integers = [name for name in names if isinstance(name, int)]
        wanted = {"request": request_id, "serialNumber": {"$in": integers}}
        with translated():
            found = set(await self._products.distinct("serialNumber", wanted)) if integers else ()
        return [
            str(name)
            if name in found or (isinstance(name, int) and name >= total_products)
            else name
            for name in names
        ]

    async def count_failed(self, request_id: str, choice: Choice) -> int:
        """How many failed images of this choice a request has."""
        failed: Document = {"images.status": ImageStatus.FAILED}
        if choice.codes is not None:
            failed["images.error.code"] = {"$in": choice.codes}
        steps: list[Document] = [
            {"$match": _chosen(request_id, asdict(choice))},
            {"$unwind": "$images"},
            {"$match": failed},
            {"$group": {"_id": None, "images": {"$sum": 1}}},
        ]
        with translated():
            counted = [found["images"] async for found in self._products.aggregate(steps)]
        return sum(counted)

    async def retry(self, request_id: str, choice: Choice, images: int) -> bool:
        """Have failed images of an ended request worked on again; its end will be announced anew.

        Args:
            request_id: which request.
            choice: which of its failed images.
            images: how many these are; they count as open from now on.

        Returns:
            False if there is no such request, or it is in no state for this.
        """
        sources = REOPEN.sources & ENDED_REQUEST
        return await self._retry(request_id, choice, sources, images)

    async def retry_image(self, request_id: str, product: int, index: int) -> bool:
        """Have one failed image worked on again, also while others of its request still are.

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
            limit: how many at most; but who has none among these gets as many too.
        """
        wanted = {"reopen.n": {"$gt": 0}}
        found = await self._store.oldest(wanted, {}, by="reopen.n", whose="payer", limit=limit)
        return [each["_id"] for each in found]

    async def carry_out_retry(self, request_id: str) -> bool:
        """Carry out some of the wish to work on failed images again, if there is one.

        Returns:
            Whether more of it is left.
        """
        with translated():
            found = await self._requests.find_one({"_id": request_id}, {"reopen": 1})
            wish = found["reopen"] if found else None
            if not wish:
                return False
            mine = {"_id": request_id, "reopen.n": wish["n"]}
            fresh = {"n": {"$gt": wish["after"]}, **_not_yet(wish)}
            cursor = self._products.find(
                {"$and": [_chosen(request_id, wish), fresh]},
                {"n": 1, "images.status": 1, "images.error.code": 1},
            )
            page = [each async for each in cursor.sort("n", ASCENDING).limit(_PRODUCTS)]
            if page:
                await self._store.write(
                    "reopen_images",
                    self._products.bulk_write,
                    [_reopen_product(product, wish) for product in page],
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
        """Have a request end as soon as it can; nothing happens if it is ended or asked already."""
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
            limit: how many at most; but who has none among these gets as many too.
        """
        wanted = {"cancelling": {"$exists": True}, "status": {"$in": sorted(OPEN_REQUEST)}}
        found = await self._store.oldest(wanted, {}, by="cancelling", whose="payer", limit=limit)
        return [each["_id"] for each in found]

    async def carry_out_cancellation(self, request_id: str) -> bool:
        """Carry out some of the wish that a request ends, if there is one.

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


def _chosen(request_id: str, choice: Document) -> Document:
    """Products with failed images of this choice; those named one by one, whatever they are."""
    if choice["images"] is not None:
        named = sorted({product for product, _ in choice["images"]})
        return {"request": request_id, "n": {"$in": named}}
    failed: Document = {"status": ImageStatus.FAILED}
    if choice["codes"] is not None:
        failed["error.code"] = {"$in": choice["codes"]}
    wanted: Document = {"request": request_id, "images": {"$elemMatch": failed}}
    if choice["products"] is not None:
        numbers = [name for name in choice["products"] if isinstance(name, int)]
        serials = [name for name in choice["products"] if isinstance(name, str)]
        integers = [value for serial in serials if (value := _as_integer(serial)) is not None]
        wanted["$or"] = [
            {"n": {"$in": numbers}},
            {"serialNumber": {"$in": [*serials, *integers]}},
        ]
    return wanted


def _as_integer(serial: str) -> int | None:
    """The integer that is written so, if it is one of 64 bits."""
    return int(serial) if _INTEGER.fullmatch(serial) and -_INT64 <= int(serial) < _INT64 else None


def _not_yet(wish: Document) -> Document:
    """The condition that a product was not opened for this wish, or a later one."""
    return {"reopened": {"$not": {"$gte": wish["n"]}}}


def _reopen_product(product: Document, wish: Document) -> UpdateOne:
    """Opens what failed and is wanted; remembers the wish in any case."""
    codes, named = wish["codes"], wish["images"]
    indexes = [
        i
        for i, image in enumerate(product["images"])
        if image["status"] == ImageStatus.FAILED
        and (codes is None or image["error"]["code"] in codes)
        and (named is None or [product["n"], i] in named)
    ]
    wanted: Document = {"_id": product["_id"], **_not_yet(wish)}
    change: Document = {"reopened": wish["n"]}
    for i in indexes:
        wanted |= allowed(REOPEN_IMAGE, f"images.{i}.status")
        change |= {f"images.{i}.status": ImageStatus.PENDING, f"images.{i}.turn": wish["n"]}
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
