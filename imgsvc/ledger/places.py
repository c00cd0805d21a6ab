"""Where an image is in the ledger, and what is read of it there."""

from __future__ import annotations

from dataclasses import dataclass

from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.model import ImageStatus
from imgsvc.ledger.copies import Spot
from imgsvc.ledger.records import Completed, Document, Failed
from imgsvc.ledger.store import product_id


@dataclass(frozen=True, slots=True)
class Place:
    """An image of a request, in one of its turns."""

    request_id: str
    product: int
    index: int
    turn: int  # the number of the wish to work on it again; 0: its first

    @property
    def key(self) -> str:
        """Of its product's document."""
        return product_id(self.request_id, self.product)


def place_of(request_id: str, spot: Spot) -> Place:
    """The place of an image that another one of its request is a copy of."""
    return Place(request_id, spot.product, spot.index, 0)


def image_at(product: Document | None, place: Place) -> Document | None:
    """The image at its place in its product, or None if there is none."""
    images = product["images"] if product else []
    return images[place.index] if place.index < len(images) else None


def is_pending(image: Document) -> bool:
    """Whether an image has not ended."""
    return bool(image["status"] == ImageStatus.PENDING)


def shared_end(image: Document) -> Completed | Failed | None:
    """The end of an image as it is that of its copies; None if it has none to share."""
    if image["status"] == ImageStatus.FAILED:
        return Failed(ErrorCode[image["error"]["code"]], image["error"]["detail"])
    if image["status"] != ImageStatus.COMPLETED:
        return None
    return Completed(
        output=image["output"],
        checksum=image["checksum"],
        bytes_in=image["bytesIn"],
        bytes_out=image["bytesOut"],
        format=image["format"],
        width=image["width"],
        height=image["height"],
        note=image["note"],
        saved="shared",
    )
