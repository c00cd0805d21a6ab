"""Giving the end of an image to its copies, some at a time.

Only an end that stands in the ledger is given on: an image that was cancelled meanwhile loses its
object. Copies end in groups of their own, so that nobody else's end waits for them, however many
they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from imgsvc.ledger.copies import Spot
from imgsvc.ledger.ends import Ends, Finish
from imgsvc.ledger.places import Place, image_at, is_pending, shared_end
from imgsvc.ledger.records import NOBODY, Completed, Ended, Failed
from imgsvc.ledger.store import GROUP, READ_EVERY_S, product_id, translated
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.group_commit import GroupCommit
from imgsvc.runtime.settings import Mongo


@dataclass(frozen=True, slots=True)
class Shared:
    """An end that is to be given to the copies of its image."""

    original: Place
    quota_tenant: str
    end: Completed | Failed
    copies: Sequence[Spot]


@dataclass(frozen=True, slots=True)
class CopiesEnded:
    """What came of giving it to some of them."""

    images: int  # so many ended by this
    due: bool  # the request is finished with them, and its webhook is due


class Sharing(Ends):
    """The ends of copies."""

    def __init__(self, settings: Mongo, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        super().__init__(settings, failpoints)
        self._copies = GroupCommit[Finish, Ended](self._finish_copies, GROUP, READ_EVERY_S)

    async def shared(
        self, request_id: str, product: int, index: int, turn: int = 0
    ) -> Shared | None:
        """The end that an image came to in this turn, and whose it is, too; None if it has none."""
        place = Place(request_id, product, index, turn)
        with translated():
            found = await self._by_key(self._products, [place.key], "payer", "images")
        its_product = found.get(place.key, {})
        image = image_at(its_product, place)
        if not image or image.get("turn", 0) != turn:
            return None
        end = shared_end(image)
        if end is None:
            return None
        copies = [Spot.read(spot) for spot in image.get("copies", [])]
        return Shared(place, its_product.get("payer", NOBODY), end, copies)

    async def end_copies(self, shared: Shared, some: slice) -> CopiesEnded:
        """End some of the copies as their original did, those that are open.

        Args:
            shared: from ``shared``.
            some: which of its copies.
        """
        original = shared.original
        spots = shared.copies[some]
        keys = (product_id(original.request_id, spot.product) for spot in spots)
        with translated():
            found = await self._by_key(self._products, keys, "images")
        places = [Place(original.request_id, s.product, s.index, original.turn) for s in spots]
        images = ((place, image_at(found.get(place.key), place)) for place in places)
        ended = await asyncio.gather(
            *(
                self._copies.submit(Finish(place, shared.end, image))
                for place, image in images
                if image and is_pending(image) and image.get("turn", 0) == place.turn
            )
        )
        return CopiesEnded(
            images=sum(each.written for each in ended), due=any(each.due for each in ended)
        )

    async def _finish_copies(self, group: Sequence[Finish]) -> list[Ended]:
        with translated():
            late = await self._write_ends("finish_copies", group)
            return await self._follow_up(group, late)
