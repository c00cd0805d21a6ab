"""The ledger: MongoDB holds the work, and what became of it.

Two collections. ``requests`` has one document for each request; ``products`` one for each
product, with its images embedded and ``open``, how many of them are not terminal, so that one
conditional update finishes an image exactly once. Products are written first and the request
last: a request exists when its document does.

The counters on a request serve ``/status`` while it runs. They are a cache: the end of a request
is decided by asking whether any product is still open, and its final numbers are counted anew.

Motor is used here alone, and only through calls that PyMongo's ``AsyncMongoClient`` has too.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, DESCENDING, InsertOne, ReturnDocument, UpdateOne
from pymongo.errors import PyMongoError

from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.group_commit import GroupCommit
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
    Step,
    Subscription,
    WebhookStatus,
    outcome,
)
from imgsvc.settings import Mongo
from imgsvc.webhooks import event_type

Document = dict[str, Any]

_INSERT_BATCH = 1000
_GROUP = 200
_LOG_LENGTH = 100  # attempts that are remembered
UNFINISHED = "UNFINISHED"  # an attempt that is under way, or was lost with its replica


@dataclass(frozen=True, slots=True)
class NewProduct:
    """A product as the client posted it."""

    serial_number: str
    product_name: str
    input_urls: Sequence[str]


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request as the client posted it."""

    products: Sequence[NewProduct]
    recipe: Recipe
    webhook: Subscription | None = None
    call_id: str = ""  # of the HTTP call that brought it
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def total_images(self) -> int:
        """Images of all products."""
        return sum(len(p.input_urls) for p in self.products)


@dataclass(frozen=True, slots=True)
class Work:
    """What an actor has to know about one open image."""

    url: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of an image that worked out."""

    output: str  # the object's name in the bucket
    checksum: str
    bytes_in: int
    bytes_out: int
    format: str
    width: int
    height: int
    note: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of an image that did not."""

    code: ErrorCode
    detail: str


@dataclass(frozen=True, slots=True)
class OpenImages:
    """One product that has images to be worked on."""

    product: int
    indexes: Sequence[int]


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """The next attempt to announce the end of a request."""

    attempt: int  # its number, from 1
    url: str
    wait_s: float  # until it may be made; 0 if that is now


@dataclass(frozen=True, slots=True)
class Delivery:
    """One claimed attempt to announce the end of a request."""

    attempt: int
    at: datetime
    ended_at: datetime
    url: str
    status: Document
    secret: str | None = field(repr=False)
    headers: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FailedWebhook:
    """An announcement that was given up."""

    request_id: str
    failed_at: datetime
    url: str
    attempts: int
    error: str | None  # of the last attempt


@dataclass(frozen=True, slots=True)
class _Finish:
    request_id: str
    product: int
    index: int
    end: Completed | Failed


class Ledger:
    """Everything the service remembers.

    Every method raises ``ServiceError(UNAVAILABLE)`` while MongoDB is away.

    Args:
        settings: where MongoDB is.
        failpoints: for tests of faults.
    """

    def __init__(self, settings: Mongo, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        self._failpoints = failpoints
        self._client: Any = AsyncIOMotorClient(
            settings.uri.get_secret_value(),
            serverSelectionTimeoutMS=settings.timeout_ms,
            connectTimeoutMS=settings.timeout_ms,
            socketTimeoutMS=settings.timeout_ms * 4,
            # A 202 promises that the request survives: ask for that.
            w="majority",
            journal=True,
            readConcernLevel="local",
            tz_aware=True,
            appname="imgsvc",
        )
        database = self._client[settings.database]
        self._requests = database["requests"]
        self._products = database["products"]
        self._finishes = GroupCommit[_Finish, bool](self._finish_group, _GROUP)

    async def prepare(self) -> None:
        """Create the indexes; harmless when they are there."""
        with _translated():
            await self._products.create_index([("request", ASCENDING), ("n", ASCENDING)])
            await self._products.create_index(
                [("request", ASCENDING), ("open", ASCENDING), ("n", ASCENDING)]
            )
            await self._requests.create_index([("status", ASCENDING), ("createdAt", ASCENDING)])
            await self._requests.create_index([("reopen", ASCENDING)], sparse=True)
            await self._requests.create_index([("createdAt", DESCENDING), ("_id", DESCENDING)])
            await self._requests.create_index(
                [("webhook.nextAt", ASCENDING)],
                partialFilterExpression={"webhook.status": WebhookStatus.PENDING},
            )
            await self._requests.create_index(
                [("updatedAt", ASCENDING)],
                partialFilterExpression={"webhook.status": WebhookStatus.FAILED},
            )

    async def check(self) -> None:
        """Raise ServiceError unless MongoDB answers."""
        with _translated():
            await self._client.admin.command("ping")

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    async def _write(
        self, name: str, method: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> Any:
        with self._failpoints.around(f"ledger.{name}"):
            return await method(*args, **options)

    # Taking requests in.

    async def insert(self, new: NewRequest) -> None:
        """Write a request: its products, then itself, which is the moment it is accepted.

        Raises:
            ServiceError: UNAVAILABLE; then there is no request.
        """
        options = new.recipe.model_dump(exclude_none=True)
        now = _now()
        try:
            with _translated():
                for start in range(0, len(new.products), _INSERT_BATCH):
                    batch = new.products[start : start + _INSERT_BATCH]
                    await self._write(
                        "insert_products",
                        self._products.bulk_write,
                        [
                            InsertOne(_product(new.id, start + i, product, options))
                            for i, product in enumerate(batch)
                        ],
                        ordered=False,
                    )
                await self._write(
                    "insert_request",
                    self._requests.insert_one,
                    {
                        "_id": new.id,
                        "callId": new.call_id,
                        "status": RequestStatus.PENDING,
                        "options": options,
                        "totalProducts": len(new.products),
                        "totalImages": new.total_images,
                        "processedProducts": 0,
                        "processedImages": 0,
                        "failedImages": 0,
                        "bytesIn": 0,
                        "bytesOut": 0,
                        "createdAt": now,
                        "updatedAt": now,
                        "cycle": 1,
                        "reopen": None,
                        "webhook": _new_webhook(new.webhook),
                    },
                )
        except ServiceError:
            await self._withdraw(new.id)
            raise

    async def _withdraw(self, request_id: str) -> None:
        # A lost reply may mean that the request was written after all; as the client was told
        # 503, it must not run. Should this fail too, nobody knows its id and nothing is lost.
        with contextlib.suppress(ServiceError), _translated():
            await self._write("withdraw_request", self._requests.delete_one, {"_id": request_id})
            await self._write(
                "withdraw_products", self._products.delete_many, {"request": request_id}
            )

    # Telling.

    async def status(self, request_id: str) -> Document | None:
        """The status object of a request, or None if there is no such request."""
        with _translated():
            found = await self._requests.find_one({"_id": request_id})
        return status_object(found) if found else None

    async def requests(
        self,
        *,
        status: str | None,
        created_after: datetime | None,
        created_before: datetime | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Document]:
        """Status objects, newest first.

        Args:
            status: only requests in this status.
            created_after: only younger ones.
            created_before: only older ones.
            before: creation time and id of the last one seen.
            limit: how many at most.
        """
        clauses: list[Document] = []
        if status:
            clauses.append({"status": status})
        if created_after:
            clauses.append({"createdAt": {"$gt": created_after}})
        if created_before:
            clauses.append({"createdAt": {"$lt": created_before}})
        if before:
            at, last = before
            clauses.append(
                {"$or": [{"createdAt": {"$lt": at}}, {"createdAt": at, "_id": {"$lt": last}}]}
            )
        with _translated():
            cursor = self._requests.find({"$and": clauses} if clauses else {})
            cursor = cursor.sort([("createdAt", DESCENDING), ("_id", DESCENDING)]).limit(limit)
            return [status_object(found) async for found in cursor]

    async def products(
        self, request_id: str, *, first: int = 0, with_status: str | None = None
    ) -> AsyncIterator[Document]:
        """The products of a request in input order, streamed.

        Args:
            request_id: whose products.
            first: the number of the first one wanted.
            with_status: only products that have an image in this status.
        """
        wanted: Document = {"request": request_id, "n": {"$gte": first}}
        if with_status:
            wanted["images.status"] = with_status
        with _translated():
            async for found in self._products.find(wanted).sort("n", ASCENDING).batch_size(500):
                yield found

    async def count_in_flight(self) -> int:
        """Images that accepted requests still wait for."""
        with _translated():
            cursor = self._requests.aggregate(
                [
                    {"$match": {"status": {"$in": sorted(OPEN_REQUEST)}}},
                    {
                        "$group": {
                            "_id": None,
                            "total": {"$sum": "$totalImages"},
                            "done": {"$sum": "$processedImages"},
                        }
                    },
                ]
            )
            found = [row async for row in cursor]
        return max(0, found[0]["total"] - found[0]["done"]) if found else 0

    # Dealing work out.

    async def open_requests(self, limit: int) -> dict[str, str]:
        """Requests that are not finished, oldest first: id -> id of the call they came with."""
        with _translated():
            cursor = self._requests.find({"status": {"$in": sorted(OPEN_REQUEST)}}, {"callId": 1})
            cursor = cursor.sort("createdAt", ASCENDING).limit(limit)
            return {found["_id"]: found["callId"] async for found in cursor}

    async def to_reopen(self, limit: int) -> list[str]:
        """Ids of requests with images that are to be worked on again."""
        with _translated():
            cursor = self._requests.find({"reopen": {"$type": "array"}}, {"_id": 1}).limit(limit)
            return [found["_id"] async for found in cursor]

    async def start(self, request_id: str) -> None:
        """Mark a request as being processed, if it was pending."""
        with _translated():
            await self._write(
                "start",
                self._requests.update_one,
                {"_id": request_id, **_before(START)},
                {"$set": {"status": RequestStatus.PROCESSING, "updatedAt": _now()}},
            )

    async def open_images(self, request_id: str, after: int, limit: int) -> list[OpenImages]:
        """The next products with open images, by number, ``after`` the given one."""
        with _translated():
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

    async def due_webhooks(self, limit: int) -> dict[str, str]:
        """Finished requests whose announcement is due now: id -> id of the call they came with."""
        with _translated():
            cursor = self._requests.find(
                {"webhook.status": WebhookStatus.PENDING, "webhook.nextAt": {"$lte": _now()}},
                {"callId": 1},
            )
            # Oldest first: each moves its time when it is attempted or put off, so all get a turn.
            cursor = cursor.sort("webhook.nextAt", ASCENDING).limit(limit)
            return {found["_id"]: found["callId"] async for found in cursor}

    # Working on images.

    async def work(self, request_id: str, product: int, index: int) -> Work | None:
        """What there is to do for an image, or None if it is not open (any more)."""
        with _translated():
            found = await self._products.find_one(
                {"_id": _product_id(request_id, product)},
                {"options": 1, "images": {"$slice": [index, 1]}},
            )
        image = found["images"][0] if found and found["images"] else None
        if not found or not image or image["status"] != ImageStatus.PENDING:
            return None
        return Work(url=image["url"], recipe=Recipe(**found["options"]))

    async def finish(
        self, request_id: str, product: int, index: int, end: Completed | Failed
    ) -> bool:
        """Write the end of an image; the first end written stays.

        Returns:
            True for one caller if the request is finished with it and its webhook is due.
        """
        return await self._finishes.submit(_Finish(request_id, product, index, end))

    async def _finish_group(self, group: Sequence[_Finish]) -> list[bool]:
        with _translated():
            now = _now()
            written = await self._write(
                "finish_images",
                self._products.bulk_write,
                [_finish_one(item) for item in group],
                ordered=False,
            )
            touched = {_product_id(item.request_id, item.product) for item in group}
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
        with _translated():
            return await self._complete(request_id)

    async def _complete(self, request_id: str) -> bool:
        still_open = await self._products.find_one(
            {"request": request_id, "open": {"$gt": 0}}, {"_id": 1}
        )
        if still_open:
            return False
        found = await self._requests.find_one(
            {"_id": request_id, **_before(END), "reopen": None}, {"webhook": 1}
        )
        if not found:
            return False
        totals = await self._totals(request_id)
        status = outcome(totals["processedImages"], totals["failedImages"])
        now = _now()
        announced = _announced(found["webhook"], status, now)
        change = {**totals, "status": status, "updatedAt": now, "finishedAt": now, **announced}
        written = await self._write(
            "complete",
            self._requests.update_one,
            {"_id": request_id, **_before(END), "reopen": None},
            {"$set": change},
        )
        return bool(written.matched_count and announced)

    # A second chance.

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
        intent: Document = {"reopen": [list(image) for image in images], "updatedAt": _now()}
        again: Document = {**intent, "status": RequestStatus.PROCESSING, "finishedAt": None}
        # With a webhook, its end will be announced anew.
        announced: Document = {**again, "webhook.status": None, "webhook.attempts": 0}
        ended = {"status": {"$in": sorted(REOPEN.sources & ENDED_REQUEST)}}
        with _translated():
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
                {**wanted, **_before(REOPEN)},
                {"$set": intent},
            )
        return bool(written.matched_count)

    async def reopen(self, request_id: str) -> None:
        """Carry out the intent to work on failed images again, if there is one."""
        with _translated():
            found = await self._requests.find_one({"_id": request_id}, {"reopen": 1})
            if not found or not found["reopen"]:
                return
            for product, index in found["reopen"]:
                at = f"images.{index}"
                await self._write(
                    "reopen_image",
                    self._products.update_one,
                    {
                        "_id": _product_id(request_id, product),
                        **_before(REOPEN_IMAGE, f"{at}.status"),
                    },
                    {
                        "$set": {f"{at}.status": ImageStatus.PENDING, "closed": False},
                        "$unset": {f"{at}.error": ""},
                        "$inc": {"open": 1},
                    },
                )
            await self._recount(request_id, _now())
            await self._write(
                "reopened",
                self._requests.update_one,
                {"_id": request_id},
                {"$set": {"reopen": None}},
            )

    # Announcing.

    async def pending_delivery(self, request_id: str) -> PendingDelivery | None:
        """The next attempt to announce a request's end, or None if there is nothing to send."""
        with _translated():
            found = await self._requests.find_one(
                {"_id": request_id, "webhook.status": WebhookStatus.PENDING}, {"webhook": 1}
            )
        if not found:
            return None
        webhook = found["webhook"]
        wait_s = max(0.0, (webhook["nextAt"] - _now()).total_seconds())
        return PendingDelivery(webhook["attempts"] + 1, webhook["url"], wait_s)

    async def put_off_delivery(self, request_id: str, attempt: int, wait_s: float) -> None:
        """Have an attempt wait that was not claimed yet.

        Args:
            request_id: whose end is announced.
            attempt: its number, from 1.
            wait_s: seconds until it may be made.
        """
        with _translated():
            await self._write(
                "put_off_delivery",
                self._requests.update_one,
                {
                    "_id": request_id,
                    "webhook.status": WebhookStatus.PENDING,
                    "webhook.attempts": attempt - 1,
                },
                {"$set": {"webhook.nextAt": _now() + timedelta(seconds=wait_s)}},
            )

    async def claim_delivery(
        self, request_id: str, attempt: int, lost_after_s: float
    ) -> Delivery | None:
        """Count an attempt before it is made, so that no crash can exceed the limit.

        Until it is recorded it is in the log as ``UNFINISHED``, and the next one is due only when
        this one must have been lost: whatever Redis forgets meanwhile, nobody sends early.

        Args:
            request_id: whose end is announced.
            attempt: its number, from 1.
            lost_after_s: seconds until another may be made if nothing is heard of this one.

        Returns:
            The attempt, or None if it is not due, or somebody else has it.
        """
        now = _now()
        entry = {
            "attempt": attempt,
            "at": now,
            "status": None,
            "latencyMs": None,
            "error": UNFINISHED,
        }
        with _translated():
            found = await self._write(
                "claim_delivery",
                self._requests.find_one_and_update,
                {
                    "_id": request_id,
                    "webhook.status": WebhookStatus.PENDING,
                    "webhook.attempts": attempt - 1,
                    "webhook.nextAt": {"$lte": now},
                },
                {
                    "$set": {
                        "webhook.attempts": attempt,
                        "webhook.nextAt": now + timedelta(seconds=lost_after_s),
                    },
                    "$push": {"webhook.log": {"$each": [entry], "$slice": -_LOG_LENGTH}},
                },
                return_document=ReturnDocument.AFTER,
            )
        if not found:
            return None
        webhook = found["webhook"]
        return Delivery(
            attempt=attempt,
            at=now,
            ended_at=found["finishedAt"],
            url=webhook["url"],
            status=status_object(found),
            secret=webhook["secret"],
            headers=webhook["headers"],
        )

    async def record_delivery(
        self,
        request_id: str,
        delivery: Delivery,
        *,
        http_status: int | None,
        latency_ms: int,
        error: str | None,
        next_wait_s: float | None,
    ) -> None:
        """Write what came of an attempt.

        A success ends the announcement whenever it is told; a failure speaks only for the newest
        attempt.

        Args:
            request_id: whose end was announced.
            delivery: the attempt as it was claimed.
            http_status: what the receiver answered, if it did.
            latency_ms: how long it took.
            error: why it does not count as delivered, or None if it does.
            next_wait_s: seconds until the next attempt; None if there is none.
        """
        now = _now()
        wanted: Document = {
            "_id": request_id,
            "webhook.status": WebhookStatus.PENDING,
            "finishedAt": delivery.ended_at,  # and not another end, after images were tried again
        }
        change: Document = {
            "updatedAt": now,
            "webhook.log.$[mine].status": http_status,
            "webhook.log.$[mine].latencyMs": latency_ms,
            "webhook.log.$[mine].error": error,
        }
        if error is None:
            change["webhook.status"] = WebhookStatus.DELIVERED
        else:
            wanted["webhook.attempts"] = delivery.attempt
            if next_wait_s is None:
                change["webhook.status"] = WebhookStatus.FAILED
            else:
                change["webhook.nextAt"] = now + timedelta(seconds=next_wait_s)
        with _translated():
            await self._write(
                "record_delivery",
                self._requests.update_one,
                wanted,
                {"$set": change},
                array_filters=[{"mine.attempt": delivery.attempt, "mine.at": delivery.at}],
            )

    async def exhaust_delivery(self, request_id: str, attempts: int) -> None:
        """Give an announcement up whose last attempt was claimed by someone who never came back.

        Args:
            request_id: whose end was announced.
            attempts: how many were made.
        """
        with _translated():
            await self._write(
                "exhaust_delivery",
                self._requests.update_one,
                {
                    "_id": request_id,
                    "webhook.status": WebhookStatus.PENDING,
                    "webhook.attempts": attempts,
                },
                {"$set": {"webhook.status": WebhookStatus.FAILED, "updatedAt": _now()}},
            )

    async def replay_webhook(self, request_id: str) -> bool:
        """Announce an ended request once more, in a new cycle of attempts with the same id.

        Returns:
            False if there is nothing to announce, or the announcement is under way.
        """
        done = [WebhookStatus.DELIVERED, WebhookStatus.FAILED]
        now = _now()
        with _translated():
            written = await self._write(
                "replay_webhook",
                self._requests.update_one,
                {"_id": request_id, "webhook.status": {"$in": done}},
                {
                    "$set": {
                        "webhook.status": WebhookStatus.PENDING,
                        "webhook.attempts": 0,
                        "webhook.nextAt": now,
                        "updatedAt": now,
                    }
                },
            )
        return bool(written.matched_count)

    async def abandon_webhook(self, request_id: str) -> None:
        """Give an announcement up for reasons of ours."""
        with _translated():
            await self._write(
                "abandon_webhook",
                self._requests.update_one,
                {"_id": request_id, "webhook.status": WebhookStatus.PENDING},
                {"$set": {"webhook.status": WebhookStatus.FAILED, "updatedAt": _now()}},
            )

    async def deliveries(self, request_id: str) -> Document | None:
        """The attempts to announce a request's end, and when the next one is to be made.

        Returns:
            ``attempts`` and ``nextAttemptAt``; None if there is no request.
        """
        with _translated():
            found = await self._requests.find_one({"_id": request_id}, {"webhook": 1})
        if not found:
            return None
        webhook = found["webhook"] or {"status": None, "log": []}
        log = webhook["log"]
        under_way = bool(log) and log[-1]["error"] == UNFINISHED
        waits = webhook["status"] == WebhookStatus.PENDING and not under_way
        return {
            "attempts": [{**entry, "at": iso(entry["at"])} for entry in log],
            "nextAttemptAt": iso(webhook["nextAt"]) if waits else None,
        }

    async def failed_webhooks(
        self, since: datetime, until: datetime, limit: int
    ) -> list[FailedWebhook]:
        """Announcements that were given up in a time, those first that were so first."""
        with _translated():
            cursor = self._requests.find(
                {
                    "webhook.status": WebhookStatus.FAILED,
                    "updatedAt": {"$gte": since, "$lte": until},
                },
                {"updatedAt": 1, "webhook": 1},
            )
            cursor = cursor.sort("updatedAt", ASCENDING).limit(limit)
            return [
                FailedWebhook(
                    request_id=found["_id"],
                    failed_at=found["updatedAt"],
                    url=found["webhook"]["url"],
                    attempts=found["webhook"]["attempts"],
                    error=log[-1]["error"] if (log := found["webhook"]["log"]) else None,
                )
                async for found in cursor
            ]


def status_object(found: Document) -> Document:
    """A request as ``GET /status/{id}`` and webhooks show it.

    A webhook that does not want to hear of this end is shown as none.
    """
    webhook = found["webhook"]
    if webhook and not webhook["status"] and found["status"] not in OPEN_REQUEST:
        webhook = None
    return {
        "requestId": found["_id"],
        "status": found["status"],
        "processedProducts": found["processedProducts"],
        "totalProducts": found["totalProducts"],
        "processedImages": found["processedImages"],
        "failedImages": found["failedImages"],
        "totalImages": found["totalImages"],
        "bytesIn": found["bytesIn"],
        "bytesOut": found["bytesOut"],
        "createdAt": iso(found["createdAt"]),
        "updatedAt": iso(found["updatedAt"]),
        "webhook": {
            "status": webhook["status"] or WebhookStatus.PENDING,
            "attempts": webhook["attempts"],
        }
        if webhook
        else None,
    }


def iso(at: datetime) -> str:
    """A time as ISO 8601 in UTC with ``Z``, in milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _before(step: Step[Any], status: str = "status") -> Document:
    """The condition that a step may be taken."""
    return {status: {"$in": sorted(step.sources)}}


def _now() -> datetime:
    # MongoDB keeps milliseconds; more would make what we write differ from what we read.
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _product_id(request_id: str, product: int) -> str:
    return f"{request_id}/{product}"


def _product(request_id: str, number: int, product: NewProduct, options: Document) -> Document:
    return {
        "_id": _product_id(request_id, number),
        "request": request_id,
        "n": number,
        "serialNumber": product.serial_number,
        "productName": product.product_name,
        "options": options,
        "open": len(product.input_urls),
        "closed": False,
        "images": [{"url": url, "status": ImageStatus.PENDING} for url in product.input_urls],
    }


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


def _announced(webhook: Document | None, status: RequestStatus, now: datetime) -> Document:
    """The change that makes the end of a request due to be announced, if that is wanted."""
    if not webhook or event_type(status) not in webhook["events"]:
        return {}
    return {"webhook.status": WebhookStatus.PENDING, "webhook.nextAt": now}


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
        )
    else:
        change = (
            ("status", ImageStatus.FAILED),
            ("error", {"code": item.end.code.name, "detail": item.end.detail}),
        )
    return UpdateOne(
        {
            "_id": _product_id(item.request_id, item.product),
            **_before(FINISH_IMAGE, f"{at}.status"),
        },
        {"$set": {f"{at}.{key}": value for key, value in change}, "$inc": {"open": -1}},
    )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """MongoDB being away is one error to the rest of the service."""
    try:
        yield
    except PyMongoError as error:
        raise ServiceError(ErrorCode.UNAVAILABLE, retry_after_s=2) from error
