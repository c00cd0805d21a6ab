"""Writing what became of images, many at a time; the first end of each stays."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pymongo import UpdateOne

from imgsvc.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.group_commit import GroupCommit
from imgsvc.ledger.completion import Completion
from imgsvc.ledger.copies import Spot
from imgsvc.ledger.places import Place, image_at
from imgsvc.ledger.records import Completed, Document, Ended, Failed
from imgsvc.ledger.store import GROUP, WRITE_EVERY_S, before, the_time, translated
from imgsvc.model import FINISH_IMAGE, OPEN_REQUEST, ImageStatus
from imgsvc.settings import Mongo


@dataclass(frozen=True, slots=True)
class _Finish:
    place: Place
    end: Completed | Failed
    copied: bool = False
    of: Spot | None = None  # the image that it is a copy of


class Ends(Completion):
    """The ends of images."""

    def __init__(self, settings: Mongo, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        super().__init__(settings, failpoints)
        self._finishes = GroupCommit[_Finish, Ended](
            self._finish_group, GROUP, WRITE_EVERY_S, self._expects
        )

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
        place = Place(request_id, product, index, turn)
        return await self._finishes.submit(_Finish(place, end, copied))

    async def _finish_group(self, group: Sequence[_Finish]) -> list[Ended]:
        with translated():
            now = the_time()
            exact = await self._write_ends("finish_images", group)
            copies = await self._copies_of([item for item in group if item.copied])
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
                found = await self._by_key(
                    self._products,
                    (item.place.key for item in group),
                    "images.status",
                    "images.output",
                )
                unwanted = [
                    _is_unwanted(item, image_at(found.get(item.place.key), item.place))
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
        together: list[dict[int, _Finish]] = []  # by index
        latest: dict[str, dict[int, _Finish]] = {}  # the last of these, by product
        for item in items:
            of_product = latest.get(item.place.key)
            if of_product is None or item.place.index in of_product:
                of_product = latest[item.place.key] = {}
                together.append(of_product)
            of_product[item.place.index] = item
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
        fields = ("images.status", "images.turn", "images.output", "images.copies")
        found = await self._by_key(self._products, (item.place.key for item in originals), *fields)
        copies = []
        for item in originals:
            image = image_at(found.get(item.place.key), item.place)
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
        wanted |= {**before(FINISH_IMAGE, f"{at}.status"), f"{at}.turn": _is_turn(item.place.turn)}
        if item.of:
            wanted[f"{at}.of"] = str(item.of)
        change |= {f"{at}.{key}": value for key, value in _fields(item.end).items()}
    return UpdateOne(wanted, {"$set": change, "$inc": {"open": -len(items)}})


def _is_turn(turn: int) -> int | Document:
    """The condition that an image is in this turn; in its first one it has no such field.

    Not that the field is null: MongoDB reads the 0 of ``images.0.turn`` as the name of a field of
    each image, too, which none has, and so finds a null there whatever the turn is.
    """
    return turn or {"$not": {"$gt": 0}}


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
