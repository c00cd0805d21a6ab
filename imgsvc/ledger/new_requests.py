"""A request as a client posts it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from imgsvc.domain.model import Recipe, SerialNumber, Subscription
from imgsvc.ledger.documents import NOBODY


def new_request_id() -> str:
    """An id that nobody can guess."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class NewProduct:
    """A product as the client posted it."""

    serial_number: SerialNumber
    product_name: str
    input_urls: Sequence[str]


@dataclass(frozen=True, slots=True)
class Idempotency:
    """How a repeated upload is recognised."""

    key: str  # the client's; each tenant has keys of its own
    digest: str  # of what was posted
    keep_s: float  # how long the key is remembered


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request as the client posted it."""

    products: Sequence[NewProduct]
    recipe: Recipe
    webhook: Subscription | None = None
    call_id: str = ""  # of the HTTP call that brought it
    tenant: str = NOBODY  # whose it is
    quota_tenant: str = NOBODY  # whose quotas it counts against: the tenant, or an address
    idempotency: Idempotency | None = None
    expires_in_days: float | None = None  # None: when the service's own time is over
    share: bool = False  # whether images with the same address are worked on once
    id: str = field(default_factory=new_request_id)

    @property
    def total_images(self) -> int:
        """Images of all products."""
        return sum(len(p.input_urls) for p in self.products)
