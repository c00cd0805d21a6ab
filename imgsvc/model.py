"""What the service works on, and which states may follow which.

Nothing here does I/O. The ledger stores these things; the tables say what it may change.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

S = TypeVar("S", bound=StrEnum)


class RequestStatus(StrEnum):
    """Where a whole request stands."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class ImageStatus(StrEnum):
    """Where one image stands."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class WebhookStatus(StrEnum):
    """Where the announcement of a finished request stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


OPEN_REQUEST = frozenset({RequestStatus.PENDING, RequestStatus.PROCESSING})
ENDED_REQUEST = frozenset({RequestStatus.COMPLETED, RequestStatus.PARTIAL, RequestStatus.FAILED})


class Step(NamedTuple, Generic[S]):
    """A change of state that is allowed; the ledger makes each by one conditional update."""

    sources: frozenset[S]
    targets: frozenset[S]


# Of a request: the first deal, its end, and a second chance for images that failed.
START = Step(frozenset({RequestStatus.PENDING}), frozenset({RequestStatus.PROCESSING}))
END = Step(frozenset({RequestStatus.PROCESSING}), ENDED_REQUEST)
REOPEN = Step(
    frozenset({RequestStatus.PROCESSING, RequestStatus.PARTIAL, RequestStatus.FAILED}),
    frozenset({RequestStatus.PROCESSING}),
)

# Of an image: its end, and a second chance.
FINISH_IMAGE = Step(
    frozenset({ImageStatus.PENDING}), frozenset({ImageStatus.COMPLETED, ImageStatus.FAILED})
)
REOPEN_IMAGE = Step(frozenset({ImageStatus.FAILED}), frozenset({ImageStatus.PENDING}))


def outcome(total_images: int, failed_images: int) -> RequestStatus:
    """The terminal status of a request all of whose images are terminal.

    Args:
        total_images: number of images of the request, at least 1.
        failed_images: how many of them failed.
    """
    if failed_images == 0:
        return RequestStatus.COMPLETED
    return RequestStatus.FAILED if failed_images >= total_images else RequestStatus.PARTIAL


# Format of a result -> content type, file extension.
FILE_TYPES: dict[str, tuple[str, str]] = {
    "jpeg": ("image/jpeg", "jpg"),
    "png": ("image/png", "png"),
    "webp": ("image/webp", "webp"),
    "avif": ("image/avif", "avif"),
    "gif": ("image/gif", "gif"),
    "tiff": ("image/tiff", "tiff"),
}

OutputFormat = Literal["auto", "keep", "jpeg", "png", "webp", "avif"]


class Recipe(BaseModel):
    """How the images of a request are to be encoded; the ``options`` of an upload."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: OutputFormat = Field(
        default="keep",
        description="keep the source's format, convert to one, or auto: the smallest sensible.",
    )
    quality: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Quality of lossy encoders, 1 to 100; left out, each format's default.",
    )
