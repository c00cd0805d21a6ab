"""What would come of an upload: the answer to ``POST /api/upload?validate=true``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from imgsvc.domain import validation
from imgsvc.domain.model import SerialNumber
from imgsvc.http.posted import Place, Posted
from imgsvc.ledger import Document
from imgsvc.runtime.settings import LONGEST_URL

_PLACES = 5  # shown of each duplicate


def view(posted: Posted) -> Document:
    """Everything that is wrong, what is there twice, and how much there is."""
    serials = _Places((product.serial_number, loc) for loc, product in posted.products)
    urls = _Places(
        (url, [*loc, "inputUrls", index])
        for loc, product in posted.products
        for index, url in enumerate(product.input_urls)
    )
    duplicates = [*serials.duplicates("serialNumber"), *urls.duplicates("inputUrl")]
    found = posted.problems
    return {
        "valid": not found.count,
        "products": posted.count,
        "images": posted.total_images,
        "distinctUrls": len(urls),
        "problems": found.listed,
        "moreProblems": found.more,
        "duplicates": duplicates[: validation.MOST],
        "moreDuplicates": max(0, len(duplicates) - validation.MOST),
    }


class _Places:
    """Where each value stands: how often, and the first places of those that repeat."""

    def __init__(self, values: Iterable[tuple[SerialNumber, Place]]) -> None:
        self._first: dict[str, tuple[SerialNumber, Place]] = {}
        self._again: dict[str, tuple[int, list[Place]]] = {}
        for value, place in values:
            text = str(value)  # a CSV does not tell 7 from "7"
            if not 0 < len(text) <= LONGEST_URL:  # what is longer is among the problems
                continue
            _, first = self._first.setdefault(text, (value, place))
            if first is not place:
                count, places = self._again.setdefault(text, (1, [first]))
                if len(places) < _PLACES:
                    places.append(place)
                self._again[text] = count + 1, places

    def __len__(self) -> int:
        return len(self._first)

    def duplicates(self, field: str) -> list[dict[str, Any]]:
        """Each value that is there more than once."""
        return [
            {"field": field, "value": self._first[text][0], "count": count, "locs": places}
            for text, (count, places) in self._again.items()
        ]
