"""Dealing images out, and writing what became of each; ending requests, and reopening them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, UpdateOne

from imgsvc.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.group_commit import GroupCommit
from imgsvc.ledger.records import NOBODY, Completed, Document, Failed, OpenImages, Work
from imgsvc.ledger.store import Store, before, product_id, scheduled, the_time, translated
from imgsvc.model import (
    END,
    ENDED_REQUEST,
    FINISH_IMAGE,
    OPEN_REQUEST,
    REOPEN,
    REOPEN_IMAGE,
    START,
    ImageStatus,
    Recipe,
    RequestStatus,
    WebhookStatus,
    outcome,
)
from imgsvc.settings import Mongo
from imgsvc.webhooks import event_type

_GROUP = 200
# A command costs MongoDB and us more than what is in it: under load these go together. What is
# written this much later was not acknowledged before, and a quiet service does not wait.
_READ_EVERY_S, _WRITE_EVERY_S = 0.02, 0.05

_Image = tuple[str, int, int]  # request, product, index


@dataclass(frozen=True, slots=True)
class _Finish:
    request_id: str
    product: int
    index: int
    end: Completed | Failed


class Images(Store):
    """Open images and their ends."""

    def __init__(self, settings: Mongo, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        super().__init__(settings, failpoints)
        self._finishes = GroupCommit[_Finish, bool](self._finish_group, _GROUP, _WRITE_EVERY_S)
        self._lookups = GroupCommit[_Image, Work | None](self._work_group, _GROUP, _READ_EVERY_S)

    async def open_requests(self, limit: int) -> dict[str, str]:
        """Requests that are not finished, oldest first: id -> id of the call they came with."""
        with translated():
            cursor = self._requests.find({"status": {"$in": sorted(OPEN_REQUEST)}}, {"callId": 1})
            cursor = cursor.sort("createdAt", ASCENDING).limit(limit)
            return {found["_id"]: found["callId"] async for found in cursor}

    async def to_reopen(self, limit: int) -> list[str]:
        """Ids of requests with images that are to be worked on again."""
        with translated():
            cursor = self._requests.find({"reopen": {"$type": "array"}}, {"_id": 1}).limit(limit)
            return [found["_id"] async for found in cursor]

    async def start(self, request_id: str) -> None:
        """Mark a request as being processed, if it was pending."""
        with translated():
            await self._write(
                "start",
                self._requests.update_one,
                {"_id": request_id, **before(START)},
                {"$set": {"status": RequestStatus.PROCESSING, "updatedAt": the_time()}},
            )

    async def open_images(self, request_id: str, after: int, limit: int) -> list[OpenImages]:
        """The next products with open images, by number, ``after`` the given one."""
        with translated():
            cursor = self._products.find(
                {"request": request_id, "open": {"$gt": 0}, "n": {"$gt": after}},
                {"n": 1, "images.status": 1},
            )
            cursor = cursor.sort("n", ASCENDING).limit(limit)
            return [
                OpenImages(
                    found["n"],
                    [
                        i
                        for i, image in enumerate(found["images"])
                        if image["status"] == ImageStatus.PENDING
                    ],
                )
                async for found in cursor
            ]

    async def work(self, request_id: str, product: int, index: int) -> Work | None:
        """What there is to do for an image, or None if it is not open (any more)."""
        return await self._lookups.submit((request_id, product, index))

    async def _work_group(self, group: Sequence[_Image]) -> list[Work | None]:
        wanted = {product_id(request_id, product) for request_id, product, _ in group}
        fields = {"options": 1, "payer": 1, "images.url": 1, "images.status": 1}
        with translated():
            cursor = self._products.find({"_id": {"$in": sorted(wanted)}}, fields)
            found = {document["_id"]: document async for document in cursor}
        return [
            _work(found.get(product_id(request_id, product)), index)
            for request_id, product, index in group
        ]

    async def finish(
        self, request_id: str, product: int, index: int, end: Completed | Failed
    ) -> bool:
        """Write the end of an image; the first end written stays.

        Returns:
            True for one caller if the request is finished with it and its webhook is due.
        """
        return await self._finishes.submit(_Finish(request_id, product, index, end))

    async def _finish_group(self, group: Sequence[_Finish]) -> list[bool]:
        with translated():
            now = the_time()
            written = await self._write(
                "finish_images",
                self._products.bulk_write,
                [_finish_one(item) for item in group],
                ordered=False,
            )
            touched = {product_id(item.request_id, item.product) for item in group}
            closed = [
                found
                async for found in self._products.find(
                    {"_id": {"$in": sorted(touched)}, "open": 0}, {"request": 1, "closed": 1}
                )
            ]
            newly = [found for found in closed if not found["closed"]]
            exact = written.matched_count == len(group)
            if newly:
                closer = uuid.uuid4().hex
                marked = await self._write(
                    "close_products",
                    self._products.bulk_write,
                    [
                        UpdateOne(
                            {"_id": found["_id"], "closed": False}, {"$set": {"closed": closer}}
                        )
                        for found in newly
                    ],
                    ordered=False,
                )
                if marked.matched_count < len(newly):
                    # Another replica saw some of them closed as well: each counts its own.
                    ids = [found["_id"] for found in newly]
                    mine = {"_id": {"$in": ids}, "closed": closer}
                    newly = [found async for found in self._products.find(mine, {"request": 1})]
            if exact:
                await self._count(group, Counter(found["request"] for found in newly), now)
            else:
                # Somebody else had finished one of these: then we cannot tell which of our
                # increments are right, so the cache is refreshed from the truth.
                for request_id in sorted({item.request_id for item in group}):
                    await self._recount(request_id, now)
            due: set[str] = set()
            for request_id in sorted({found["request"] for found in closed}):
                if await self._complete(request_id):
                    due.add(request_id)
        answers = []
        for item in group:
            answers.append(item.request_id in due)
            due.discard(item.request_id)
        return answers

    async def _count(self, group: Sequence[_Finish], products: Counter[str], now: datetime) -> None:
        increments: dict[str, Counter[str]] = {}
        for item in group:
            counted = increments.setdefault(item.request_id, Counter())
            counted["processedImages"] += 1
            if isinstance(item.end, Completed):
                counted["bytesIn"] += item.end.bytes_in
                counted["bytesOut"] += item.end.bytes_out
            else:
                counted["failedImages"] += 1
        for request_id, number in products.items():
            increments[request_id]["processedProducts"] += number
        await self._write(
            "count",
            self._requests.bulk_write,
            [
                # Only while it is open: who ends a request counts everything anew, and that
                # may have happened since our images were written.
                UpdateOne(
                    {"_id": request_id, "status": {"$in": sorted(OPEN_REQUEST)}},
                    {"$inc": dict(counted), "$set": {"updatedAt": now}},
                )
                for request_id, counted in increments.items()
            ],
            ordered=False,
        )

    async def _totals(self, request_id: str) -> Document:
        """The true counters of a request, from its products."""
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
                    }
                },
            ]
        )
        rows = {row["_id"]: row async for row in cursor}
        rows.pop(ImageStatus.PENDING, None)
        return {
            "processedProducts": await self._products.count_documents(
                {"request": request_id, "open": 0}
            ),
            "processedImages": sum(row["images"] for row in rows.values()),
            "failedImages": rows.get(ImageStatus.FAILED, {}).get("images", 0),
            "bytesIn": sum(row["bytesIn"] for row in rows.values()),
            "bytesOut": sum(row["bytesOut"] for row in rows.values()),
        }

    async def _recount(self, request_id: str, now: datetime) -> None:
        await self._write(
            "recount",
            self._requests.update_one,
            {"_id": request_id, "status": {"$in": sorted(OPEN_REQUEST)}},
            {"$set": {**await self._totals(request_id), "updatedAt": now}},
        )

    async def complete(self, request_id: str) -> bool:
        """End a request none of whose products is open; True if its webhook is due by this."""
        with translated():
            return await self._complete(request_id)

    async def _complete(self, request_id: str) -> bool:
        still_open = await self._products.find_one(
            {"request": request_id, "open": {"$gt": 0}}, {"_id": 1}
        )
        if still_open:
            return False
        found = await self._requests.find_one(
            {"_id": request_id, **before(END), "reopen": None}, {"webhook": 1}
        )
        if not found:
            return False
        totals = await self._totals(request_id)
        status = outcome(totals["processedImages"], totals["failedImages"])
        now = the_time()
        announced = _announced(found["webhook"], status, now)
        change = {**totals, "status": status, "updatedAt": now, "finishedAt": now, **announced}
        written = await self._write(
            "complete",
            self._requests.update_one,
            {"_id": request_id, **before(END), "reopen": None},
            {"$set": change},
        )
        return bool(written.matched_count and announced)

    async def ask_to_reopen(self, request_id: str, images: Sequence[tuple[int, int]]) -> bool:
        """Have failed images worked on again.

        Only the intent is written, in one step: while it stands the request cannot end, and the
        dealer carries it out, again if need be.

        Args:
            request_id: whose images.
            images: product and index of each.

        Returns:
            False if there is no such request, or it is in no state for this.
        """
        wanted: Document = {"_id": request_id, "reopen": None}
        intent: Document = {"reopen": [list(image) for image in images], "updatedAt": the_time()}
        again: Document = {**intent, "status": RequestStatus.PROCESSING, "finishedAt": None}
        # With a webhook, its end will be announced anew.
        announced: Document = {**again, "webhook.status": None, "webhook.attempts": 0}
        ended = {"status": {"$in": sorted(REOPEN.sources & ENDED_REQUEST)}}
        with translated():
            for webhook, change in (({"$ne": None}, announced), (None, again)):
                written = await self._write(
                    "reopen",
                    self._requests.update_one,
                    {**wanted, **ended, "webhook": webhook},
                    {"$set": change, "$inc": {"cycle": 1}},
                )
                if written.matched_count:
                    return True
            written = await self._write(
                "reopen_running",
                self._requests.update_one,
                {**wanted, **before(REOPEN)},
                {"$set": intent},
            )
        return bool(written.matched_count)

    async def reopen(self, request_id: str) -> None:
        """Carry out the intent to work on failed images again, if there is one."""
        with translated():
            found = await self._requests.find_one({"_id": request_id}, {"reopen": 1})
            if not found or not found["reopen"]:
                return
            for product, index in found["reopen"]:
                at = f"images.{index}"
                await self._write(
                    "reopen_image",
                    self._products.update_one,
                    {
                        "_id": product_id(request_id, product),
                        **before(REOPEN_IMAGE, f"{at}.status"),
                    },
                    {
                        "$set": {f"{at}.status": ImageStatus.PENDING, "closed": False},
                        "$unset": {f"{at}.error": ""},
                        "$inc": {"open": 1},
                    },
                )
            await self._recount(request_id, the_time())
            await self._write(
                "reopened",
                self._requests.update_one,
                {"_id": request_id},
                {"$set": {"reopen": None}},
            )


def _work(product: Document | None, index: int) -> Work | None:
    if not product or index >= len(product["images"]):
        return None
    image = product["images"][index]
    if image["status"] != ImageStatus.PENDING:
        return None
    recipe = Recipe(**product["options"])
    return Work(url=image["url"], recipe=recipe, payer=product.get("payer", NOBODY))


def _announced(webhook: Document | None, status: RequestStatus, now: datetime) -> Document:
    """The change that makes the end of a request due to be announced, if that is wanted."""
    if not webhook or event_type(status) not in webhook["events"]:
        return {}
    return {"webhook.status": WebhookStatus.PENDING, **scheduled(now, 0)}


def _finish_one(item: _Finish) -> UpdateOne:
    at = f"images.{item.index}"
    if isinstance(item.end, Completed):
        end = item.end
        change: Iterable[tuple[str, Any]] = (
            ("status", ImageStatus.COMPLETED),
            ("output", end.output),
            ("checksum", end.checksum),
            ("bytesIn", end.bytes_in),
            ("bytesOut", end.bytes_out),
            ("format", end.format),
            ("width", end.width),
            ("height", end.height),
            ("note", end.note),
            ("ms", end.ms),
        )
    else:
        change = (
            ("status", ImageStatus.FAILED),
            ("error", {"code": item.end.code.name, "detail": item.end.detail}),
            ("ms", item.end.ms),
        )
    return UpdateOne(
        {
            "_id": product_id(item.request_id, item.product),
            **before(FINISH_IMAGE, f"{at}.status"),
        },
        {"$set": {f"{at}.{key}": value for key, value in change}, "$inc": {"open": -1}},
    )
