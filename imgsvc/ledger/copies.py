"""Images of one request that have the same address: one is worked on, the others share its end.

The first image with an address is the original, the rest are its copies; the original lists them.
Its message goes to the Copier, which ends them. If that message is lost, the dealer finds them open
beside an original that is not, and each gets the same result then; if there is none to share, it
is worked on for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imgsvc.ledger.records import NewProduct


@dataclass(frozen=True, slots=True)
class Spot:
    """Which image of a request."""

    product: int
    index: int

    @classmethod
    def read(cls, text: str) -> Spot:
        """What ``str`` has written."""
        product, _, index = text.partition("-")
        return cls(int(product), int(index))

    def __str__(self) -> str:
        return f"{self.product}-{self.index}"


class Copies:
    """Which images of a request are copies of which.

    Args:
        products: of the request.
    """

    def __init__(self, products: Sequence[NewProduct]) -> None:
        originals: dict[str, Spot] = {}
        self._original: dict[Spot, Spot] = {}
        self._copies: dict[Spot, list[Spot]] = {}
        for number, product in enumerate(products):
            for index, url in enumerate(product.input_urls):
                spot = Spot(number, index)
                original = originals.setdefault(url, spot)
                if original != spot:
                    self._original[spot] = original
                    self._copies.setdefault(original, []).append(spot)

    def of(self, product: int, index: int) -> dict[str, object]:
        """What an image's entry in the ledger says of this; nothing if its address is its own."""
        spot = Spot(product, index)
        if spot in self._original:
            return {"of": str(self._original[spot])}
        if spot in self._copies:
            return {"copied": True, "copies": [str(copy) for copy in self._copies[spot]]}
        return {}
