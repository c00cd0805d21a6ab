"""Which failed images a client wants to have tried again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from imgsvc.domain.model import ImageStatus, SerialNumber
from imgsvc.ledger.documents import Document
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import Store

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failed images are to be worked on again; what is None chooses all."""

    codes: Sequence[str] | None = None  # they failed with one of these
    products: Sequence[int | str] | None = None  # by number, or by serial number as a text
    images: Sequence[tuple[int, int]] | None = None  # product and index of each


class Choices:
    """Finds what a client's choice means in a request.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._products = store.products

    async def resolve_products(
        self, request_id: str, names: Sequence[SerialNumber], total_products: int
    ) -> list[SerialNumber]:
        """Products of a request as ``Choice`` names them, from how a client does.

        An integer is a serial number if a product of the request has it as an integer, else a
        product's number if there are so many, else a serial number again: one that is a text.
        """
        integers = [name for name in names if isinstance(name, int)]
        wanted = {"request": request_id, "serialNumber": {"$in": integers}}
        with translated():
            found = set(await self._products.distinct("serialNumber", wanted)) if integers else ()
        return [
            str(name)
            if name in found or (isinstance(name, int) and name >= total_products)
            else name
            for name in names
        ]

    async def count_failed(self, request_id: str, choice: Choice) -> int:
        """How many failed images of this choice a request has."""
        failed: Document = {"images.status": ImageStatus.FAILED}
        if choice.codes is not None:
            failed["images.error.code"] = {"$in": choice.codes}
        steps: list[Document] = [
            {"$match": products_with(request_id, asdict(choice))},
            {"$unwind": "$images"},
            {"$match": failed},
            {"$group": {"_id": None, "images": {"$sum": 1}}},
        ]
        with translated():
            counted = [found["images"] async for found in self._products.aggregate(steps)]
        return sum(counted)


def products_with(request_id: str, choice: Document) -> Document:
    """Products with failed images of this choice; those named one by one, whatever they are."""
    if choice["images"] is not None:
        named = sorted({product for product, _ in choice["images"]})
        return {"request": request_id, "n": {"$in": named}}
    failed: Document = {"status": ImageStatus.FAILED}
    if choice["codes"] is not None:
        failed["error.code"] = {"$in": choice["codes"]}
    wanted: Document = {"request": request_id, "images": {"$elemMatch": failed}}
    if choice["products"] is not None:
        numbers = [name for name in choice["products"] if isinstance(name, int)]
        serials = [name for name in choice["products"] if isinstance(name, str)]
        integers = [value for serial in serials if (value := _as_integer(serial)) is not None]
        wanted["$or"] = [
            {"n": {"$in": numbers}},
            {"serialNumber": {"$in": [*serials, *integers]}},
        ]
    return wanted


def _as_integer(serial: str) -> int | None:
    """The integer that is written so, if it is one of 64 bits."""
    return int(serial) if _INTEGER.fullmatch(serial) and -_INT64 <= int(serial) < _INT64 else None
