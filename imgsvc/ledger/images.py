"""Writes how images ended, many at a time; the first end of each stays."""

from __future__ import annotations

import secrets
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pymongo import UpdateOne

from imgsvc.domain.model import OPEN_REQUEST
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.completion import FEW_PRODUCTS, Completion
from imgsvc.ledger.documents import Document
from imgsvc.ledger.ends import Completed, Failed
from imgsvc.ledger.finish import Finish, finish_together, is_unwanted
from imgsvc.ledger.image_refs import ImageRef
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import GROUP, WRITE_EVERY_S, Store
from imgsvc.runtime.group_commit import GroupCommit

_RECOUNT_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of writing the end of an image."""

    due: bool  # for one caller: the request is finished with it, and its webhook is due
    unwanted: bool  # the image ended otherwise for good: no image has the object
    written: bool = True  # by this; else the image had an end already


class Images:
    """The ends of images.

    Args:
        store: the database.
        completion: ends their requests.
        expecting: whether more images will end soon; then writing an end waits a little for them.
    """

    def __init__(self, store: Store, completion: Completion, expecting: Callable[[], bool]) -> None:
        self._store = store
        self._requests = store.requests
        self._products = store.products
        self._completion = completion
        self._finishes = GroupCommit[Finish, Ended](
            self._finish_images, GROUP, WRITE_EVERY_S, expecting
        )
        self._recounts = GroupCommit[str, None](self._recount_few, GROUP, _RECOUNT_EVERY_S)

    async def finish(
        self, request_id: str, product: int, index: int, end: Completed | Failed, turn: int = 0
    ) -> Ended:
        """Write the end of an image in this turn; the first end written stays.

        Args:
            request_id: of its request.
            product: of its product.
            index: within the product.
            end: what became of it.
            turn: in which it was worked on.
        """
        ended = await self._finishes.submit(Finish(ImageRef(request_id, product, index, turn), end))
        if not ended.written:
            # Its writer may have died before it counted the end. This caller counts, so that those
            # whose ends are written together with it need not wait.
            await self._recounts.submit(request_id)
        return ended

    async def _finish_images(self, group: Sequence[Finish]) -> list[Ended]:
        return await self.finish_group("finish_images", group)

    async def finish_group(self, name: str, group: Sequence[Finish]) -> list[Ended]:
        """Write ends of images that came together.

        Args:
            name: of the failpoint around writing them.
            group: what to write.

        Returns:
            What came of each.
        """
        with translated():
            late = await self._write_ends(name, group)
            return await self._follow_up(group, late)

    async def _follow_up(
        self, group: Sequence[Finish], late: Mapping[int, Document | None]
    ) -> list[Ended]:
        """Close products and requests that are not open any more, and count.

        Args:
            group: ends that have been written.
            late: numbers of those that have not, because there was one already; and their images.
        """
        now = current_time()
        written = [item for number, item in enumerate(group) if number not in late]
        closed, going_on = await self._closed_by(group)
        newly = await self._newly_closed(closed, written)
        closings = {
            request_id: await self._completion.try_to_end(request_id)
            for request_id in sorted({found["request"] for found in closed} - going_on)
        }
        # A request that has ended was counted anew as a whole.
        over = {request_id for request_id, closing in closings.items() if closing.ended}
        await self._count(
            [item for item in written if item.ref.request_id not in over],
            [found["request"] for found in newly if found["request"] not in over],
            now,
        )
        due = {request_id for request_id, closing in closings.items() if closing.due}
        answers = []
        for number, item in enumerate(group):
            request_id = item.ref.request_id
            unwanted = number in late and is_unwanted(item, late[number])
            answers.append(Ended(request_id in due, unwanted, written=number not in late))
            due.discard(request_id)
        return answers

    async def _write_ends(self, name: str, items: Sequence[Finish]) -> dict[int, Document | None]:
        """Write ends of images, but for those that have one.

        Those of one product are one update, which is carried out as a whole or not at all.

        Returns:
            The numbers of those that had an end already, and what these images are.
        """
        together: list[dict[int, Finish]] = []  # by index
        latest: dict[str, dict[int, Finish]] = {}  # the last of these, by product
        for item in items:
            of_product = latest.get(item.ref.key)
            if of_product is None or item.ref.index in of_product:
                of_product = latest[item.ref.key] = {}
                together.append(of_product)
            of_product[item.ref.index] = item
        writer = secrets.token_hex(8)
        updates = [finish_together(list(some.values()), writer) for some in together]
        if await self._store.update_all(name, self._products, updates) == len(updates):
            return {}
        if len(updates) < len(items):  # some were held up by an end that was there already
            singly = [finish_together([item], writer) for item in items]
            await self._store.update_all(name, self._products, singly)
        fields = ("images.status", "images.output", "images.writer")
        found = await self._store.by_key(self._products, (item.ref.key for item in items), *fields)
        late: dict[int, Document | None] = {}
        ours: set[ImageRef] = set()
        for number, item in enumerate(items):
            image = item.ref.of(found.get(item.ref.key))
            if image and image.get("writer") == writer and item.ref not in ours:
                ours.add(item.ref)
            else:
                late[number] = image
        return late

    async def _recount_few(self, request_ids: Sequence[str]) -> list[None]:
        """Count what became of the images of requests anew, if that is quick.

        Others are counted when they end; until then a few of their images may be missing.
        """
        with translated():
            found = await self._store.by_key(self._requests, request_ids, "totalProducts")
            for request_id, request in found.items():
                if request.get("totalProducts", 0) <= FEW_PRODUCTS:
                    await self._completion.recount(request_id, current_time())
        return [None] * len(request_ids)

    async def _closed_by(self, ended: Sequence[Finish]) -> tuple[list[Document], set[str]]:
        """Products of these images that are not open any more, and requests known to go on."""
        touched = {item.ref.key for item in ended}
        known = self._completion.known_open({item.ref.request_id for item in ended})
        fields = ("request", "closed", "open", "images.status")
        found = (await self._store.by_key(self._products, touched | known, *fields)).values()
        closed = [each for each in found if each["open"] == 0 and each["_id"] in touched]
        return closed, {each["request"] for each in found if each["open"] > 0}

    async def _newly_closed(
        self, closed: Sequence[Document], written: Sequence[Finish]
    ) -> list[Document]:
        """The products that this replica has to count: each is counted by one replica only.

        Args:
            closed: products that are not open any more.
            written: ends that this replica has written.
        """
        images = Counter(item.ref.key for item in written)
        ours: list[Document] = []
        shared: list[Document] = []
        for found in closed:
            # If all of its images ended here, no other replica can have closed it.
            (ours if images[found["_id"]] == len(found["images"]) else shared).append(found)
        shared = [found for found in shared if not found["closed"]]
        if not shared:
            return ours
        closer = uuid.uuid4().hex
        ids = [found["_id"] for found in shared]
        marked = await self._store.write(
            "close_products",
            self._products.bulk_write,
            [UpdateOne({"_id": id_, "closed": False}, {"$set": {"closed": closer}}) for id_ in ids],
            ordered=False,
        )
        if marked.matched_count < len(shared):
            # Another replica saw some of them closed as well: each counts its own.
            again = await self._store.by_key(self._products, ids, "request", "closed")
            shared = [each for each in again.values() if each["closed"] == closer]
        return [*ours, *shared]

    async def _count(self, written: Sequence[Finish], closed: Sequence[str], now: datetime) -> None:
        """Count ends that were written, and products that were closed, given by their requests."""
        increments: dict[str, Counter[str]] = defaultdict(Counter)
        for request_id in closed:
            increments[request_id]["processedProducts"] += 1
        for item in written:
            counted = increments[item.ref.request_id]
            counted["processedImages"] += 1
            if isinstance(item.end, Completed):
                counted["bytesIn"] += item.end.bytes_in
                counted["bytesOut"] += item.end.bytes_out
                if item.end.saved:
                    counted[f"{item.end.saved}Images"] += 1
            else:
                counted["failedImages"] += 1
        if not increments:
            return
        await self._store.write(
            "count",
            self._requests.bulk_write,
            [
                # Only while it is open: ending a request counts everything anew, and that may
                # have happened since our images were written.
                UpdateOne(
                    {"_id": request_id, "status": {"$in": sorted(OPEN_REQUEST)}},
                    {"$inc": dict(counted), "$set": {"updatedAt": now}},
                )
                for request_id, counted in increments.items()
            ],
            ordered=False,
        )
