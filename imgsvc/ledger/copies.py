"""Ends the copies of an image as the image itself ended, some at a time.

The end is read from the ledger first, because an image that was cancelled meanwhile loses its
object. Copies are written in groups of their own, so that no other image waits for them, however
many they are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from imgsvc.ledger.documents import NOBODY
from imgsvc.ledger.ends import Completed, Failed, shared_end
from imgsvc.ledger.finish import Finish
from imgsvc.ledger.image_refs import ImageRef, Position, is_pending
from imgsvc.ledger.images import Ended, Images
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import GROUP, READ_EVERY_S, Store
from imgsvc.runtime.group_commit import GroupCommit

# Copies of one page in one product that are worth reading its images whole, so that each is
# written as one path. A gallery that many products share has few a page in each, and is large.
_MANY = 8


@dataclass(frozen=True, slots=True)
class Shared:
    """The end of an image that its copies get too."""

    original: ImageRef
    quota_tenant: str
    end: Completed | Failed
    copies: Sequence[Position]


@dataclass(frozen=True, slots=True)
class CopiesEnded:
    """What came of ending some of the copies."""

    images: int  # how many it ended
    due: bool  # the request ended with them, and its webhook is due


class Copies:
    """The ends of copies.

    Args:
        store: the database.
        images: writes the ends.
    """

    def __init__(self, store: Store, images: Images) -> None:
        self._store = store
        self._products = store.products
        self._images = images
        self._finishes = GroupCommit[Finish, Ended](self._finish_copies, GROUP, READ_EVERY_S)

    async def shared_end(
        self, request_id: str, product: int, index: int, turn: int = 0
    ) -> Shared | None:
        """How an image ended in this turn, and which images are its copies; None if it did not end."""
        ref = ImageRef(request_id, product, index, turn)
        with translated():
            found = await self._store.by_key(self._products, [ref.key], "payer", "images")
        its_product = found.get(ref.key, {})
        image = ref.of(its_product)
        if not image or image.get("turn", 0) != turn:
            return None
        end = shared_end(image)
        if end is None:
            return None
        copies = [Position.parse(copy) for copy in image.get("copies", [])]
        return Shared(ref, its_product.get("payer", NOBODY), end, copies)

    async def end(self, shared: Shared, some: slice) -> CopiesEnded:
        """End those of some copies that are open, as their original did.

        Args:
            shared: from ``shared_end``.
            some: which of its copies.
        """
        original = shared.original
        copies = [
            ImageRef(original.request_id, at.product, at.index, original.turn)
            for at in shared.copies[some]
        ]
        by_product = Counter(copy.key for copy in copies)
        many = {key for key, count in by_product.items() if count >= _MANY}
        with translated():
            found = await self._store.by_key(self._products, many, "images")
            found |= await self._store.by_key(
                self._products, by_product.keys() - many, "images.status", "images.turn"
            )
        finishes = [
            Finish(copy, shared.end, image if copy.key in many else None)
            for copy in copies
            if (image := copy.of(found.get(copy.key)))
            and is_pending(image)
            and image.get("turn", 0) == copy.turn
        ]
        del found  # it may be large, and a group may wait
        ended = await asyncio.gather(*map(self._finishes.submit, finishes))
        return CopiesEnded(
            images=sum(each.written for each in ended), due=any(each.due for each in ended)
        )

    async def _finish_copies(self, group: Sequence[Finish]) -> list[Ended]:
        return await self._images.finish_group("finish_copies", group)
