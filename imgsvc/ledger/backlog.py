"""The work that is left: open requests, their open images, and what to do for each."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pymongo import ASCENDING

from imgsvc.domain.model import OPEN_REQUEST, START, ImageStatus, Recipe, RequestStatus
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.documents import ERASED, NOBODY, Document, allowed, is_erased
from imgsvc.ledger.ends import Completed, shared_end
from imgsvc.ledger.image_refs import ImageRef, is_pending
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.recent import Recent
from imgsvc.ledger.store import GROUP, READ_EVERY_S, Store
from imgsvc.runtime.group_commit import GroupCommit

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


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request with work left."""

    id: str
    call_id: str  # of the HTTP call that brought it
    quota_tenant: str
    products: int = 0  # how many it has


@dataclass(frozen=True, slots=True)
class OpenImages:
    """A product with open images."""

    product: int
    turns: Mapping[int, int]  # index of each -> the turn in which it is worked on
    copied: Container[int] = ()  # indexes of those that have copies
    originals: Mapping[int, str] = field(default_factory=dict)  # index of a copy -> its original


@dataclass(frozen=True, slots=True)
class Work:
    """What an actor has to know about one open image."""

    url: str
    recipe: Recipe
    quota_tenant: str  # whom its bytes count against
    tenant: str
    shared: Completed | None = None  # the end of another image with the same address


class Backlog:
    """Open requests and their open images.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._requests = store.requests
        self._products = store.products
        self._wanted_at = Recent[float]()  # by request when its images were known to be
        self._questions = GroupCommit[str, bool](self._wanted_group, GROUP, READ_EVERY_S)
        self._lookups = GroupCommit[ImageRef, Work | None](self._work_group, GROUP, READ_EVERY_S)

    async def requests(self, limit: int) -> list[OpenRequest]:
        """Requests with work to be done, oldest first.

        Args:
            limit: how many at most; a tenant that has none among these gets as many too.
        """
        wanted = {"status": {"$in": sorted(OPEN_REQUEST)}, "cancelling": None}
        found = await self._store.oldest(
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
            await self._store.write(
                "start",
                self._requests.update_many,
                {"_id": {"$in": request_ids}, **allowed(START)},
                {"$set": {"status": RequestStatus.PROCESSING, "updatedAt": current_time()}},
            )

    async def images(self, request_id: str, after: int, limit: int) -> list[OpenImages]:
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
        """The originals of open images on this page that are open themselves."""
        wanted = {
            image["of"]: ImageRef.at(request_id, image["of"])
            for found in page
            for image in found["images"]
            if image["status"] == ImageStatus.PENDING and "of" in image
        }
        keys = (ref.key for ref in wanted.values())
        found = await self._store.by_key(self._products, keys, "images.status")
        originals = {of: ref.of(found.get(ref.key)) for of, ref in wanted.items()}
        return {of for of, image in originals.items() if image and is_pending(image)}

    async def work(self, request_id: str, product: int, index: int, turn: int = 0) -> Work | None:
        """What to do for an image in this turn; None if it is not open, or not any more."""
        return await self._lookups.submit(ImageRef(request_id, product, index, turn))

    async def is_wanted(self, request_id: str) -> bool:
        """Whether the images of a request are still to be worked on, as of a moment ago.

        That is enough to stop soon after a cancellation. Work that goes on too long is noticed when
        its end is written.
        """
        now = time.monotonic()
        known_at = self._wanted_at.get(request_id)
        if known_at is not None and now - known_at < _MOMENT_S:
            return True
        wanted = await self._questions.submit(request_id)
        if wanted:
            self._wanted_at.put(request_id, now)
        return wanted

    async def _wanted_group(self, group: Sequence[str]) -> list[bool]:
        with translated():
            found = await self._store.by_key(self._requests, group, "status", "cancelling", *ERASED)
        wanted = {
            key
            for key, request in found.items()
            if request.get("status") in OPEN_REQUEST
            and request.get("cancelling") is None
            and not is_erased(request)
        }
        return [request_id in wanted for request_id in group]

    async def _work_group(self, group: Sequence[ImageRef]) -> list[Work | None]:
        with translated():
            found = await self._store.by_key(self._products, (ref.key for ref in group), *_WORK)
            images = {ref: ref.of(found.get(ref.key)) for ref in group}
            wanted = {
                ref: ImageRef.at(ref.request_id, image["of"])
                for ref, image in images.items()
                if image and "of" in image
            }
            keys = (ref.key for ref in wanted.values())
            others = await self._store.by_key(self._products, keys, "images")
        originals = {ref: original.of(others.get(original.key)) for ref, original in wanted.items()}
        return [_work(found.get(ref.key), ref, originals.get(ref)) for ref in group]


def _work(product: Document | None, ref: ImageRef, original: Document | None) -> Work | None:
    image = ref.of(product)
    if not product or not image or not is_pending(image):
        return None
    if image.get("turn", 0) != ref.turn or (original and is_pending(original)):
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
