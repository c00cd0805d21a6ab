"""Dealing images out, and writing what became of each; ending requests."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, TypeVar

from pymongo import ASCENDING, DESCENDING, UpdateOne

from imgsvc.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.group_commit import GroupCommit
from imgsvc.ledger.copies import Spot
from imgsvc.ledger.records import (
    ERASED,
    NOBODY,
    Completed,
    Document,
    Ended,
    Failed,
    OpenImages,
    OpenRequest,
    Work,
    is_erased,
)
from imgsvc.ledger.store import (
    GROUP,
    READ_EVERY_S,
    WRITE_EVERY_S,
    Store,
    before,
    product_id,
    scheduled,
    the_time,
    translated,
)
from imgsvc.model import (
    CANCEL,
    END,
    FINISH_IMAGE,
    OPEN_REQUEST,
    START,
    ImageStatus,
    Recipe,
    RequestStatus,
    WebhookStatus,
    outcome,
)
from imgsvc.settings import Mongo
from imgsvc.webhooks import event_type

T = TypeVar("T")

_WORK = (
    "options",
    "tenant",
    "payer",
    "images.url",
    "images.status",
    "images.turn",
    "images.of",
)
_REMEMBERED = 10_000  # requests of which something is kept in mind
_MOMENT_S = 0.25
_FEW_PRODUCTS = 16  # to count them is as quick as to look for an open one


@dataclass(frozen=True, slots=True)
class _Place:
    request_id: str
    product: int
    index: int
    turn: int  # the number of the wish to work on it again; 0: its first

    @property
    def key(self) -> str:
        """Of its product's document."""
        return product_id(self.request_id, self.product)


@dataclass(frozen=True, slots=True)
class _Finish:
    place: _Place
    end: Completed | Failed
    copied: bool = False
    of: Spot | None = None  # the image that it is a copy of


class _Closing(NamedTuple):
    """What came of trying to end a request."""

    ended: bool  # by us
    due: bool  # its webhook, by this


_GOES_ON = _Closing(ended=False, due=False)


class Images(Store):
    """Open images and their ends."""

    def __init__(self, settings: Mongo, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        super().__init__(settings, failpoints)
        self._finishes = GroupCommit[_Finish, Ended](
            self._finish_group, GROUP, WRITE_EVERY_S, self._expects
        )
        # By request a product that was open, the last one if possible: while it still is, nobody
        # need look for others, which in a large request may take long.
        self._open_products: dict[str, str] = {}
        self._wanted_at: dict[str, float] = {}  # by request when its images were known to be
        self._questions = GroupCommit[str, bool](self._wanted_group, GROUP, READ_EVERY_S)
        self._lookups = GroupCommit[_Place, Work | None](self._work_group, GROUP, READ_EVERY_S)

    async def open_requests(self, limit: int) -> list[OpenRequest]:
        """Requests with work to be done, oldest first.

        Args:
            limit: how many at most; but whose requests are not among the oldest gets as many too.
        """
        wanted = {"status": {"$in": sorted(OPEN_REQUEST)}, "cancelling": None}
        found = await self._oldest(
            wanted,
            {"callId": 1, "totalProducts": 1},
            by="createdAt",
            whose="payer",
            limit=limit,
        )
        return [
            OpenRequest(each["_id"], each["callId"], each["payer"], each["totalProducts"])
            for each in found
        ]

    async def start(self, request_ids: Sequence[str]) -> None:
        """Mark requests as being processed, if they were pending."""
        if not request_ids:
            return
        with translated():
            await self._write(
                "start",
                self._requests.update_many,
                {"_id": {"$in": request_ids}, **before(START)},
                {"$set": {"status": RequestStatus.PROCESSING, "updatedAt": the_time()}},
            )

    async def open_images(self, request_id: str, after: int, limit: int) -> list[OpenImages]:
        """The next products with open images, by number, ``after`` the given one.

        They may be fewer than ``limit`` even if more follow.
        """
        fields = ("n", "images.status", "images.turn", "images.of", "images.copied")
        open_ = {"request": request_id, "open": {"$gt": 0}}
        with translated():
            # A range first: not every MongoDB stops sorting when it has as many as are wanted.
            for numbers in ({"$gt": after, "$lte": after + limit}, {"$gt": after}):
                cursor = self._products.find({**open_, "n": numbers}, dict.fromkeys(fields, 1))
                page = [found async for found in cursor.sort("n", ASCENDING).limit(limit)]
                if page:
                    break
            waiting = await self._open_originals(request_id, page)
        return [
            OpenImages(
                found["n"],
                {
                    i: image.get("turn", 0)
                    for i, image in enumerate(found["images"])
                    if image["status"] == ImageStatus.PENDING and image.get("of") not in waiting
                },
                {i for i, image in enumerate(found["images"]) if image.get("copied")},
            )
            for found in page
        ]

    async def _open_originals(self, request_id: str, page: Iterable[Document]) -> set[str]:
        """Which of the images are open that open ones on this page are copies of."""
        wanted = {
            image["of"]: _place(request_id, Spot.read(image["of"]))
            for found in page
            for image in found["images"]
            if image["status"] == ImageStatus.PENDING and "of" in image
        }
        if not wanted:
            return set()
        found = await self._products_of(wanted.values(), "images.status")
        originals = {of: _image(found.get(place.key), place) for of, place in wanted.items()}
        return {of for of, image in originals.items() if image and _is_pending(image)}

    async def work(self, request_id: str, product: int, index: int, turn: int = 0) -> Work | None:
        """What there is to do for an image in this turn, or None if it is not open (any more)."""
        return await self._lookups.submit(_Place(request_id, product, index, turn))

    async def is_wanted(self, request_id: str) -> bool:
        """Whether the images of a request are still to be worked on, as of a moment ago.

        That suffices to stop soon when it is cancelled; what was late is found when it ends.
        """
        now = time.monotonic()
        if now - self._wanted_at.get(request_id, -_MOMENT_S) < _MOMENT_S:
            return True
        wanted = await self._questions.submit(request_id)
        if wanted:
            _remember(self._wanted_at, request_id, now)
        return wanted

    async def _wanted_group(self, group: Sequence[str]) -> list[bool]:
        with translated():
            found = await self._by_key(self._requests, group, "status", "cancelling", *ERASED)
        wanted = {
            key
            for key, request in found.items()
            if request.get("status") in OPEN_REQUEST
            and request.get("cancelling") is None
            and not is_erased(request)
        }
        return [request_id in wanted for request_id in group]

    async def _work_group(self, group: Sequence[_Place]) -> list[Work | None]:
        with translated():
            found = await self._products_of(group, *_WORK)
            images = {place: _image(found.get(place.key), place) for place in group}
            wanted = {
                place: _place(place.request_id, Spot.read(image["of"]))
                for place, image in images.items()
                if image and "of" in image
            }
            others = await self._products_of(wanted.values(), "images") if wanted else {}
        originals = {
            place: _image(others.get(original.key), original) for place, original in wanted.items()
        }
        return [_work(found.get(place.key), place, originals.get(place)) for place in group]

    async def _products_of(self, places: Iterable[_Place], *fields: str) -> dict[str, Document]:
        """These fields of the products of these places, by the products' keys."""
        return await self._by_key(self._products, (place.key for place in places), *fields)

    async def finish(
        self,
        request_id: str,
        product: int,
        index: int,
        end: Completed | Failed,
        turn: int = 0,
        *,
        copied: bool = False,
    ) -> Ended:
        """Write the end of an image in this turn; the first end written stays.

        Args:
            request_id: of its request.
            product: of its product.
            index: within the product.
            end: what became of it.
            turn: in which it was worked on.
            copied: whether it has copies, which then end as it does.
        """
        place = _Place(request_id, product, index, turn)
        return await self._finishes.submit(_Finish(place, end, copied))

    async def _finish_group(self, group: Sequence[_Finish]) -> list[Ended]:
        with translated():
            now = the_time()
            exact = await self._write_ends("finish_images", group)
            copies = await self._copies_of([item for item in group if item.copied])
            if copies:
                exact = await self._write_ends("finish_copies", copies) and exact
            ended = [*group, *copies]
            closed, going_on = await self._closed_by(ended)
            newly = await self._newly_closed(closed, ended if exact else [])
            closings = {
                request_id: await self._complete(request_id)
                for request_id in sorted({found["request"] for found in closed} - going_on)
            }
            over = {request_id for request_id, closing in closings.items() if closing.ended}
            unwanted = [False] * len(group)
            if exact:
                products = Counter(found["request"] for found in newly)
                # Who ended a request has counted everything anew.
                rest = [item for item in ended if item.place.request_id not in over]
                await self._count(rest, products, now)
            else:
                # Somebody else had finished one of these: then we cannot tell which of our
                # increments are right, so the cache is refreshed from the truth.
                for request_id in sorted({item.place.request_id for item in group} - over):
                    await self._recount(request_id, now)
                found = await self._products_of(
                    (item.place for item in group), "images.status", "images.output"
                )
                unwanted = [
                    _is_unwanted(item, _image(found.get(item.place.key), item.place))
                    for item in group
                ]
        due = {request_id for request_id, closing in closings.items() if closing.due}
        answers = []
        for item, nobodys in zip(group, unwanted, strict=True):
            request_id = item.place.request_id
            shared = sum(_is_copy_of(copy, item) for copy in copies) if item.copied else 0
            answers.append(Ended(due=request_id in due, unwanted=nobodys, copies=shared))
            due.discard(request_id)
        return answers

    async def _write_ends(self, name: str, items: Sequence[_Finish]) -> bool:
        """Write ends of images; whether each was written now, and none was there already.

        Those of one product are one update, which is carried out as a whole or not at all.
        """
        together: list[dict[_Place, _Finish]] = []
        latest: dict[str, dict[_Place, _Finish]] = {}  # by product
        for item in items:
            of_product = latest.get(item.place.key)
            if of_product is None or any(place.index == item.place.index for place in of_product):
                of_product = latest[item.place.key] = {}
                together.append(of_product)
            of_product[item.place] = item
        updates = [_finishing(list(some.values())) for some in together]
        if await self._update_all(name, self._products, updates) == len(updates):
            return True
        if len(updates) < len(items):  # some were held up by an end that was there already
            await self._update_all(name, self._products, [_finishing([item]) for item in items])
        return False

    async def _copies_of(self, originals: Sequence[_Finish]) -> list[_Finish]:
        """The ends of the copies of images that have ended.

        Only an end that stands is shared: an image that was cancelled meanwhile loses its object.
        """
        if not originals:
            return []
        fields = ("images.status", "images.turn", "images.output", "images.copies")
        found = await self._products_of((item.place for item in originals), *fields)
        copies = []
        for item in originals:
            image = _image(found.get(item.place.key), item.place)
            if image and _stands(item, image):
                copies += [_copy(item, Spot.read(spot)) for spot in image.get("copies", [])]
        return copies

    async def _closed_by(self, ended: Sequence[_Finish]) -> tuple[list[Document], set[str]]:
        """Products of these images that are not open any more, and requests known to go on."""
        touched = {item.place.key for item in ended}
        requests = {item.place.request_id for item in ended} & self._open_products.keys()
        known = {self._open_products[request_id] for request_id in requests}
        fields = ("request", "closed", "open", "images.status")
        found = (await self._by_key(self._products, touched | known, *fields)).values()
        closed = [each for each in found if each["open"] == 0 and each["_id"] in touched]
        return closed, {each["request"] for each in found if each["open"] > 0}

    async def _newly_closed(
        self, closed: Sequence[Document], written: Sequence[_Finish]
    ) -> list[Document]:
        """Which of these products are ours to count: each is counted by one replica.

        Args:
            closed: products that are not open any more.
            written: ends of images that nobody but us has written.
        """
        images = Counter(item.place.key for item in written)
        ours: list[Document] = []
        shared: list[Document] = []
        for found in closed:
            # All of whose images ended here, nobody else can have closed.
            (ours if images[found["_id"]] == len(found["images"]) else shared).append(found)
        shared = [found for found in shared if not found["closed"]]
        if not shared:
            return ours
        closer = uuid.uuid4().hex
        ids = [found["_id"] for found in shared]
        marked = await self._write(
            "close_products",
            self._products.bulk_write,
            [UpdateOne({"_id": id_, "closed": False}, {"$set": {"closed": closer}}) for id_ in ids],
            ordered=False,
        )
        if marked.matched_count < len(shared):
            # Another replica saw some of them closed as well: each counts its own.
            again = await self._by_key(self._products, ids, "request", "closed")
            shared = [each for each in again.values() if each["closed"] == closer]
        return [*ours, *shared]

    async def _count(self, group: Sequence[_Finish], products: Counter[str], now: datetime) -> None:
        if not group:
            return
        increments: dict[str, Counter[str]] = {}
        for item in group:
            counted = increments.setdefault(item.place.request_id, Counter())
            counted["processedImages"] += 1
            if isinstance(item.end, Completed):
                counted["bytesIn"] += item.end.bytes_in
                counted["bytesOut"] += item.end.bytes_out
                if item.end.saved:
                    counted[f"{item.end.saved}Images"] += 1
            else:
                counted["failedImages"] += 1
        for request_id, counted in increments.items():
            counted["processedProducts"] += products[request_id]
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

    async def _totals(self, request_id: str) -> tuple[Document, int]:
        """The true counters of a request's images, and how many are open."""
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
                        "shared": {"$sum": "$images.shared"},
                        "reused": {"$sum": "$images.reused"},
                    }
                },
            ]
        )
        rows = {row["_id"]: row async for row in cursor}
        open_ = rows.pop(ImageStatus.PENDING, {}).get("images", 0)
        return {
            "processedImages": sum(row["images"] for row in rows.values()),
            "failedImages": rows.get(ImageStatus.FAILED, {}).get("images", 0),
            "bytesIn": sum(row["bytesIn"] for row in rows.values()),
            "bytesOut": sum(row["bytesOut"] for row in rows.values()),
            "sharedImages": sum(row["shared"] for row in rows.values()),
            "reusedImages": sum(row["reused"] for row in rows.values()),
        }, open_

    async def _recount(self, request_id: str, now: datetime) -> None:
        totals, _ = await self._totals(request_id)
        ended = await self._products.count_documents({"request": request_id, "open": 0})
        await self._write(
            "recount",
            self._requests.update_one,
            {"_id": request_id, "status": {"$in": sorted(OPEN_REQUEST)}},
            {"$set": {**totals, "processedProducts": ended, "updatedAt": now}},
        )

    async def complete(self, request_id: str) -> bool:
        """End a request none of whose products is open; True if its webhook is due by this."""
        with translated():
            return (await self._complete(request_id)).due

    async def _complete(self, request_id: str) -> _Closing:
        fields = ("status", "webhook", "cancelling", "reopen", "reopens", "totalProducts")
        found = await self._requests.find_one({"_id": request_id}, dict.fromkeys(fields, 1))
        if not found or found.get("status") not in CANCEL.sources or found.get("reopen"):
            return _GOES_ON
        # Only what is true since the request was read, and no wish has come since, is its end:
        # before, images may have been opened again.
        if found["totalProducts"] > _FEW_PRODUCTS and await self._has_open(request_id):
            return _GOES_ON
        totals, open_ = await self._totals(request_id)
        if open_:
            return _GOES_ON
        now = the_time()
        unchanged = {key: found.get(key) for key in ("cancelling", "reopens")}
        if found.get("cancelling"):
            step, status = CANCEL, RequestStatus.CANCELLED
            swept: Document = {"sweepFrom": now}
        else:
            step, status = END, outcome(totals["processedImages"], totals["failedImages"])
            swept = {}
        announced = _announced(found["webhook"], status, now)
        totals["processedProducts"] = found["totalProducts"]
        change = {**totals, "status": status, "updatedAt": now, "finishedAt": now}
        written = await self._write(
            "complete",
            self._requests.update_one,
            {"_id": request_id, **before(step), "reopen": None, **unchanged},
            {"$set": {**change, **announced, **swept}, "$unset": {"cancelling": ""}},
        )
        ended = bool(written.matched_count)
        return _Closing(ended=ended, due=ended and bool(announced))

    async def _has_open(self, request_id: str) -> bool:
        found = await self._products.find_one(
            {"request": request_id, "open": {"$gt": 0}}, {"_id": 1}, sort=[("n", DESCENDING)]
        )
        self._open_products.pop(request_id, None)
        if found:
            _remember(self._open_products, request_id, found["_id"])
        return bool(found)


def _remember(memory: dict[str, T], request_id: str, what: T) -> None:
    """Keep in mind what is known of a request; of so many, the oldest is forgotten."""
    memory.pop(request_id, None)
    memory[request_id] = what
    if len(memory) > _REMEMBERED:
        memory.pop(next(iter(memory)))


def _work(product: Document | None, place: _Place, original: Document | None) -> Work | None:
    image = _image(product, place)
    if not product or not image or not _is_pending(image):
        return None
    if image.get("turn", 0) != place.turn or (original and _is_pending(original)):
        return None
    return Work(
        url=image["url"],
        recipe=Recipe(**product["options"]),
        payer=product.get("payer", NOBODY),
        tenant=product.get("tenant", NOBODY),
        shared=_shared(original),
    )


def _place(request_id: str, spot: Spot) -> _Place:
    return _Place(request_id, spot.product, spot.index, 0)


def _is_pending(image: Document) -> bool:
    return bool(image["status"] == ImageStatus.PENDING)


def _stands(item: _Finish, image: Document) -> bool:
    """Whether this is the end that is written."""
    if image.get("turn", 0) != item.place.turn:
        return False
    if isinstance(item.end, Failed):
        return bool(image["status"] == ImageStatus.FAILED)
    return bool(image["status"] == ImageStatus.COMPLETED and image["output"] == item.end.output)


def _copy(item: _Finish, spot: Spot) -> _Finish:
    """The end of a copy of this image."""
    end = replace(item.end, ms={})
    return _Finish(
        replace(item.place, product=spot.product, index=spot.index),
        replace(end, saved="shared") if isinstance(end, Completed) else end,
        of=Spot(item.place.product, item.place.index),
    )


def _is_copy_of(copy: _Finish, item: _Finish) -> bool:
    same_request = copy.place.request_id == item.place.request_id
    return same_request and copy.of == Spot(item.place.product, item.place.index)


def _shared(original: Document | None) -> Completed | None:
    """The end to share of an image that has one; a failed one has none."""
    if not original or original["status"] != ImageStatus.COMPLETED:
        return None
    return Completed(
        output=original["output"],
        checksum=original["checksum"],
        bytes_in=original["bytesIn"],
        bytes_out=original["bytesOut"],
        format=original["format"],
        width=original["width"],
        height=original["height"],
        note=original["note"],
        saved="shared",
    )


def _image(product: Document | None, place: _Place) -> Document | None:
    images = product["images"] if product else []
    return images[place.index] if place.index < len(images) else None


def _announced(webhook: Document | None, status: RequestStatus, now: datetime) -> Document:
    """The change that makes the end of a request due to be announced, if that is wanted."""
    if not webhook or event_type(status) not in webhook["events"]:
        return {}
    return {"webhook.status": WebhookStatus.PENDING, **scheduled(now, 0)}


def _is_unwanted(item: _Finish, image: Document | None) -> bool:
    """Whether the object of an end that was not written can never be an image's.

    An image that failed may be worked on again, and then adopt it.
    """
    if not isinstance(item.end, Completed):
        return False
    if image is None or image["status"] == ImageStatus.CANCELLED:
        return True
    return bool(image["status"] == ImageStatus.COMPLETED and image["output"] != item.end.output)


def _finishing(items: Sequence[_Finish]) -> UpdateOne:
    """The update that ends images of one product, if all of them are open in their turns."""
    wanted: Document = {"_id": items[0].place.key}
    change: Document = {}
    for item in items:
        at = f"images.{item.place.index}"
        wanted |= {**before(FINISH_IMAGE, f"{at}.status"), f"{at}.turn": item.place.turn or None}
        if item.of:
            wanted[f"{at}.of"] = str(item.of)
        change |= {f"{at}.{key}": value for key, value in _fields(item.end).items()}
    return UpdateOne(wanted, {"$set": change, "$inc": {"open": -len(items)}})


def _fields(end: Completed | Failed) -> Document:
    """An image's end as it is kept."""
    if isinstance(end, Failed):
        return {
            "status": ImageStatus.FAILED,
            "error": {"code": end.code.name, "detail": end.detail},
            "ms": end.ms,
        }
    return {
        "status": ImageStatus.COMPLETED,
        "output": end.output,
        "checksum": end.checksum,
        "bytesIn": end.bytes_in,
        "bytesOut": end.bytes_out,
        "format": end.format,
        "width": end.width,
        "height": end.height,
        "note": end.note,
        "ms": end.ms,
        **({end.saved: 1} if end.saved else {}),
    }
