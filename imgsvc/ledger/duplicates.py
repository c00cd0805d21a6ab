"""Images of one request that have the same address: one is worked on, the others share its end.

The first image with an address is the original, the rest are its copies; the original lists them.
The original's message goes to the Copier, which ends them. If that message is lost, the dealer finds
copies that are open although their original has ended. Each gets the same result then; if there is
none to share, it is worked on for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from imgsvc.ledger.image_refs import Position
from imgsvc.ledger.new_requests import NewProduct


class Duplicates:
    """Which images of a request are copies of which.

    Args:
        products: of the request.
    """

    def __init__(self, products: Sequence[NewProduct]) -> None:
        originals: dict[str, Position] = {}
        self._original: dict[Position, Position] = {}
        self._copies: dict[Position, list[Position]] = {}
        for number, product in enumerate(products):
            for index, url in enumerate(product.input_urls):
                position = Position(number, index)
                original = originals.setdefault(url, position)
                if original != position:
                    self._original[position] = original
                    self._copies.setdefault(original, []).append(position)

    def of(self, product: int, index: int) -> dict[str, object]:
        """What an image's entry in the ledger says of this; nothing if its address is its own."""
        position = Position(product, index)
        if position in self._original:
            return {"of": str(self._original[position])}
        if position in self._copies:
            return {"copied": True, "copies": [str(copy) for copy in self._copies[position]]}
        return {}
