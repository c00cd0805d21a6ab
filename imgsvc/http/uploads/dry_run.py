"""The answer to ``POST /api/upload?validate=true``: what would become of the upload."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from imgsvc.domain import validation
from imgsvc.domain.model import SerialNumber
from imgsvc.http.uploads.validate import Place, Validated
from imgsvc.ledger import Document
from imgsvc.runtime.settings import LONGEST_URL

_PLACES = 5  # shown of each duplicate


def view(upload: Validated) -> Document:
    """All problems, all duplicates, and how much there is."""
    serials = _Occurrences((product.serial_number, place) for place, product in upload.products)
    urls = _Occurrences(
        (url, [*place, "inputUrls", index])
        for place, product in upload.products
        for index, url in enumerate(product.input_urls)
    )
    duplicates = [*serials.duplicates("serialNumber"), *urls.duplicates("inputUrl")]
    problems = upload.problems
    return {
        "valid": not problems.count,
        "products": upload.count,
        "images": upload.total_images,
        "distinctUrls": len(urls),
        "problems": problems.listed,
        "moreProblems": problems.more,
        "duplicates": duplicates[: validation.MOST],
        "moreDuplicates": max(0, len(duplicates) - validation.MOST),
    }


class _Occurrences:
    """Where values occur: how often, and the first places of those that repeat."""

    def __init__(self, values: Iterable[tuple[SerialNumber, Place]]) -> None:
        self._first: dict[str, tuple[SerialNumber, Place]] = {}
        self._repeated: dict[str, tuple[int, list[Place]]] = {}
        for value, place in values:
            text = str(value)  # a CSV does not distinguish 7 from "7"
            if not 0 < len(text) <= LONGEST_URL:  # what is longer is among the problems
                continue
            _, first = self._first.setdefault(text, (value, place))
            if first is not place:
                count, places = self._repeated.setdefault(text, (1, [first]))
                if len(places) < _PLACES:
                    places.append(place)
                self._repeated[text] = count + 1, places

    def __len__(self) -> int:
        return len(self._first)

    def duplicates(self, field: str) -> list[dict[str, Any]]:
        """Each value that occurs more than once."""
        return [
            {"field": field, "value": self._first[text][0], "count": count, "locs": places}
            for text, (count, places) in self._repeated.items()
        ]
