"""Which image of the ledger is meant, and what is read of it there."""

from __future__ import annotations

from dataclasses import dataclass

from imgsvc.domain.model import ImageStatus
from imgsvc.ledger.documents import Document


@dataclass(frozen=True, slots=True)
class Position:
    """Where an image is in its request."""

    product: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Position:
        """What ``str`` has written."""
        product, _, index = text.partition("-")
        return cls(int(product), int(index))

    def __str__(self) -> str:
        return f"{self.product}-{self.index}"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image of a request, in one of its turns."""

    request_id: str
    product: int
    index: int
    turn: int = 0  # the number of the retry that it is worked on for; 0: its first time

    @classmethod
    def at(cls, request_id: str, position: str) -> ImageRef:
        """An image in its first turn, by its position as a text."""
        where = Position.parse(position)
        return cls(request_id, where.product, where.index)

    @property
    def key(self) -> str:
        """Of its product's document."""
        return product_id(self.request_id, self.product)

    def of(self, product: Document | None) -> Document | None:
        """The image in its product's document, or None if it is not there."""
        images = product["images"] if product else []
        return images[self.index] if self.index < len(images) else None


def product_id(request_id: str, product: int) -> str:
    """The key of a product's document."""
    return f"{request_id}/{product}"


def is_pending(image: Document) -> bool:
    """Whether an image has not ended."""
    return bool(image["status"] == ImageStatus.PENDING)
