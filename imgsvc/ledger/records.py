"""What goes into the ledger and comes out of it, as values."""

from __future__ import annotations

import uuid
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.messages import Times
from imgsvc.domain.model import (
    OPEN_REQUEST,
    Recipe,
    Scope,
    SerialNumber,
    Subscription,
    WebhookStatus,
)

Document = dict[str, Any]

NOBODY = "nobody"  # the tenant of all that comes in while nobody has to say who they are
ERASED = ("erasing", "erasedAt")  # fields of a request that say so
UNFINISHED = "UNFINISHED"  # an attempt that is under way, or was lost with its replica


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
class Repeat:
    """How an upload is known again when it is repeated."""

    key: str  # the client's, its own within its tenant
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
    repeat: Repeat | None = None
    expires_in_days: float | None = None  # None: when the service's own time is over
    share: bool = False  # whether images with the same address are worked on once
    id: str = field(default_factory=new_request_id)

    @property
    def total_images(self) -> int:
        """Images of all products."""
        return sum(len(p.input_urls) for p in self.products)


@dataclass(frozen=True, slots=True)
class Work:
    """What an actor has to know about one open image."""

    url: str
    recipe: Recipe
    quota_tenant: str  # whom its bytes count against
    tenant: str
    shared: Completed | None = None  # the end of another image with the same address


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of an image that worked out."""

    output: str  # the object's name in the bucket
    checksum: str
    bytes_in: int
    bytes_out: int
    format: str
    width: int
    height: int
    note: str
    ms: Times = field(default_factory=dict)
    saved: Literal["shared", "reused"] | None = None  # how, if it took no work of its own


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of an image that did not."""

    code: ErrorCode
    detail: str
    ms: Times = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of writing the end of an image."""

    due: bool  # for one caller: the request is finished with it, and its webhook is due
    unwanted: bool  # the image ended otherwise for good: the object is nobody's
    written: bool = True  # by this; else the image had an end already


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failed images are to be worked on again; what is None chooses all."""

    codes: Sequence[str] | None = None  # they failed with one of these
    products: Sequence[int | str] | None = None  # by number, or by serial number as a text
    images: Sequence[tuple[int, int]] | None = None  # product and index of each


@dataclass(frozen=True, slots=True)
class Erasure:
    """The end of a request's data."""

    asked_at: datetime
    erased_at: datetime | None  # None: under way


@dataclass(frozen=True, slots=True)
class RefusedErasure:
    """An erasure that waits because the bucket failed."""

    request_id: str
    tries: int
    reason: str  # of the last one
    again_at: datetime


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """One request that has work to be done."""

    id: str
    call_id: str  # of the HTTP call that brought it
    quota_tenant: str
    products: int = 0  # how many it has


@dataclass(frozen=True, slots=True)
class OpenImages:
    """One product that has images to be worked on."""

    product: int
    turns: Mapping[int, int]  # index of each -> the turn in which it is worked on
    copied: Container[int] = ()  # indexes of those that others are copies of
    originals: Mapping[int, str] = field(default_factory=dict)  # of those that are copies, as spots


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """The next attempt to announce the end of a request."""

    attempt: int  # its number, from 1
    url: str
    wait_s: float  # until it may be made; 0 if that is now
    quota_tenant: str  # whose it is


@dataclass(frozen=True, slots=True)
class Delivery:
    """One claimed attempt to announce the end of a request."""

    attempt: int
    at: datetime
    ended_at: datetime
    cycle: int  # of the request: which of its ends, from 1
    url: str
    status: Document
    secret: str | None = field(repr=False)
    headers: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FailedWebhook:
    """An announcement that was given up."""

    request_id: str
    failed_at: datetime
    url: str
    attempts: int
    error: str | None  # of the last attempt


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of an API key."""

    id: str
    digest: bytes = field(repr=False)
    tenant: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None  # to the minute


def is_erased(request: Document) -> bool:
    """Whether a request's data are gone, or are about to go."""
    return any(request.get(field) is not None for field in ERASED)


def status_object(found: Document) -> Document:
    """A request as ``GET /status/{id}`` and webhooks show it.

    A webhook that does not want to hear of this end is shown as none.
    """
    webhook = found["webhook"]
    if webhook and not webhook["status"] and found["status"] not in OPEN_REQUEST:
        webhook = None
    return {
        "requestId": found["_id"],
        "status": found["status"],
        "processedProducts": found["processedProducts"],
        "totalProducts": found["totalProducts"],
        "processedImages": found["processedImages"],
        "failedImages": found["failedImages"],
        "totalImages": found["totalImages"],
        "bytesIn": found["bytesIn"],
        "bytesOut": found["bytesOut"],
        "sharedImages": found["sharedImages"],
        "reusedImages": found["reusedImages"],
        "createdAt": iso(found["createdAt"]),
        "updatedAt": iso(found["updatedAt"]),
        "webhook": {
            "status": webhook["status"] or WebhookStatus.PENDING,
            "attempts": webhook["attempts"],
        }
        if webhook
        else None,
    }


def iso(at: datetime) -> str:
    """A time as ISO 8601 in UTC with ``Z``, in milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
