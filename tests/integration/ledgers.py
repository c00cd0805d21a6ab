"""What the tests of the ledger put into it, and how they look at it."""

from __future__ import annotations

from typing import Any

from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.model import Recipe, Subscription
from imgsvc.ledger import NOBODY, Completed, Failed, Ledger, NewProduct, NewRequest

FAILED = Failed(ErrorCode.FETCH_STATUS, "The origin answered with status 404.")
HOOK = "https://example.com/hook"
TO_HOOK = Subscription(url=HOOK)


def completed(output: str = "out.jpg", bytes_out: int = 4) -> Completed:
    """The end of an image that worked out."""
    return Completed(output, "crc", 10, bytes_out, "jpeg", 3, 2, "encoded", {"fetch": 7})


def new_request(*images: int, webhook: Subscription | None = TO_HOOK, **more: Any) -> NewRequest:
    """A request with one product for each number of images given."""
    products = [
        NewProduct(f"S{n}", f"Product {n}", [f"https://example.com/{n}-{i}" for i in range(count)])
        for n, count in enumerate(images)
    ]
    return NewRequest(products, Recipe(quality=50), webhook, **more)


async def known(ledger: Ledger, request_id: str) -> dict[str, Any]:
    """The status of a request that is there."""
    status = await ledger.requests.status(request_id, NOBODY)
    assert status
    return status


async def products(ledger: Ledger, request_id: str, **more: Any) -> list[dict[str, Any]]:
    """All products of a request, of 2000 at most."""
    return [found async for found in ledger.requests.products(request_id, 2000, **more)]
