"""Dealing images out: which are open, and what there is to do for one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from pymongo import ASCENDING

from imgsvc.domain.model import OPEN_REQUEST, START, ImageStatus, Recipe, RequestStatus
from imgsvc.ledger.copies import Spot
from imgsvc.ledger.places import Place, image_at, is_pending, place_of, shared_end
from imgsvc.ledger.records import (
    ERASED,
    NOBODY,
    Completed,
    Document,
    OpenImages,
    OpenRequest,
    Work,
    is_erased,
)
from imgsvc.ledger.store import GROUP, READ_EVERY_S, Store, before, remember, the_time, translated
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.group_commit import GroupCommit
from imgsvc.runtime.settings import Mongo

_WORK = (
    "options",
    "tenant",
    "payer",
    "images.url",
    "images.status",
    "images.turn",
    "images.of",
)
_MOMENT_S = 0.25


class Images(Store):
    """Open images."""

    def __init__(self, settings: Mongo, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        super().__init__(settings, failpoints)
        self._wanted_at: dict[str, float] = {}  # by request when its images were known to be
        self._questions = GroupCommit[str, bool](self._wanted_group, GROUP, READ_EVERY_S)
        self._lookups = GroupCommit[Place, Work | None](self._work_group, GROUP, READ_EVERY_S)

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
        fields = ("n", "open", "images.status", "images.turn", "images.of", "images.copied")
        near = {"request": request_id, "n": {"$gt": after, "$lte": after + limit}}
        far = {"request": request_id, "open": {"$gt": 0}, "n": {"$gt": after + limit}}
        with translated():
            # Those near first, by number alone: in a large request many more are open, and not
            # every MongoDB looks at no more of them than it has to.
            for wanted in (near, far):
                cursor = self._products.find(wanted, dict.fromkeys(fields, 1))
                cursor = cursor.sort("n", ASCENDING).limit(limit)
                page = [found async for found in cursor if found["open"] > 0]
                if page:
                    break
            waiting = await self._open_originals(request_id, page)
        return [
            OpenImages(
                found["n"],
                {
                    i: image.get("turn", 0)
                    for i, image in enumerate(found["images"])
                    if is_pending(image) and image.get("of") not in waiting
                },
                {i for i, image in enumerate(found["images"]) if image.get("copied")},
                {
                    i: image["of"]
                    for i, image in enumerate(found["images"])
                    if is_pending(image) and image.get("of")
                },
            )
            for found in page
        ]

    async def _open_originals(self, request_id: str, page: Iterable[Document]) -> set[str]:
        """Which of the images are open that open ones on this page are copies of."""
        wanted = {
            image["of"]: place_of(request_id, Spot.read(image["of"]))
            for found in page
            for image in found["images"]
            if image["status"] == ImageStatus.PENDING and "of" in image
        }
        keys = (place.key for place in wanted.values())
        found = await self._by_key(self._products, keys, "images.status")
        originals = {of: image_at(found.get(place.key), place) for of, place in wanted.items()}
        return {of for of, image in originals.items() if image and is_pending(image)}

    async def work(self, request_id: str, product: int, index: int, turn: int = 0) -> Work | None:
        """What there is to do for an image in this turn, or None if it is not open (any more)."""
        return await self._lookups.submit(Place(request_id, product, index, turn))

    async def is_wanted(self, request_id: str) -> bool:
        """Whether the images of a request are still to be worked on, as of a moment ago.

        That suffices to stop soon when it is cancelled; what was late is found when it ends.
        """
        now = time.monotonic()
        if now - self._wanted_at.get(request_id, -_MOMENT_S) < _MOMENT_S:
            return True
        wanted = await self._questions.submit(request_id)
        if wanted:
            remember(self._wanted_at, request_id, now)
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

    async def _work_group(self, group: Sequence[Place]) -> list[Work | None]:
        with translated():
            found = await self._by_key(self._products, (place.key for place in group), *_WORK)
            images = {place: image_at(found.get(place.key), place) for place in group}
            wanted = {
                place: place_of(place.request_id, Spot.read(image["of"]))
                for place, image in images.items()
                if image and "of" in image
            }
            keys = (place.key for place in wanted.values())
            others = await self._by_key(self._products, keys, "images")
        originals = {
            place: image_at(others.get(original.key), original)
            for place, original in wanted.items()
        }
        return [_work(found.get(place.key), place, originals.get(place)) for place in group]


def _work(product: Document | None, place: Place, original: Document | None) -> Work | None:
    image = image_at(product, place)
    if not product or not image or not is_pending(image):
        return None
    if image.get("turn", 0) != place.turn or (original and is_pending(original)):
        return None
    return Work(
        url=image["url"],
        recipe=Recipe(**product["options"]),
        quota_tenant=product.get("payer", NOBODY),
        tenant=product.get("tenant", NOBODY),
        shared=_result(original),
    )


def _result(original: Document | None) -> Completed | None:
    """The end to share of an image that has one; a failed one has none."""
    end = shared_end(original) if original else None
    return end if isinstance(end, Completed) else None
