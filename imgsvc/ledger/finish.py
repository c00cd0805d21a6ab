"""The update that ends images of one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pymongo import UpdateOne

from imgsvc.domain.model import FINISH_IMAGE, ImageStatus
from imgsvc.ledger.documents import Document, allowed
from imgsvc.ledger.ends import Completed, Failed, end_fields
from imgsvc.ledger.image_refs import ImageRef


@dataclass(frozen=True, slots=True)
class Finish:
    """An end that is to be written.

    Attributes:
        ref: which image.
        end: what became of it.
        image: as it was read in this turn while it was open, if it was read. Until it ends nothing
            else of it changes, so it is written whole: a server may compare every path that an
            update sets with all others, and an end has a dozen.
    """

    ref: ImageRef
    end: Completed | Failed
    image: Document | None = None


def is_unwanted(item: Finish, image: Document | None) -> bool:
    """Whether the object of an end that was not written can never be an image's.

    An image that failed may be worked on again, and then adopt it.
    """
    if not isinstance(item.end, Completed):
        return False
    if image is None or image["status"] == ImageStatus.CANCELLED:
        return True
    return bool(image["status"] == ImageStatus.COMPLETED and image["output"] != item.end.output)


def finish_together(items: Sequence[Finish], writer: str) -> UpdateOne:
    """The update that ends images of one product, if all of them are open in their turns."""
    wanted: Document = {"_id": items[0].ref.key}
    change: Document = {}
    for item in items:
        at = f"images.{item.ref.index}"
        wanted |= {**allowed(FINISH_IMAGE, f"{at}.status"), f"{at}.turn": _is_turn(item.ref.turn)}
        fields = {**end_fields(item.end), "writer": writer}
        if item.image is None:
            change |= {f"{at}.{key}": value for key, value in fields.items()}
        else:
            change[at] = item.image | fields
    return UpdateOne(wanted, {"$set": change, "$inc": {"open": -len(items)}})


def _is_turn(turn: int) -> int | Document:
    """The condition that an image is in this turn; in its first one it has no such field.

    Not that the field is null: MongoDB reads the 0 of ``images.0.turn`` as the name of a field of
    each image, too, which none has, and so finds a null there whatever the turn is.
    """
    return turn or {"$not": {"$gt": 0}}
