"""What the service works on, and which states may follow which.

Nothing here does I/O. The ledger stores these things; the tables say what it may change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    GetJsonSchemaHandler,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from imgsvc.runtime.settings import check_webhook_secret

S = TypeVar("S", bound=StrEnum)

LONGEST_TEXT = 500
"""Characters of a serial number or a product name."""

SerialNumber = int | str
"""What identifies a product for its client; an integer has 64 bits."""


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


class Event(StrEnum):
    """What a webhook announces."""

    COMPLETED = "request.completed"
    PARTIAL = "request.partial"
    FAILED = "request.failed"
    CANCELLED = "request.cancelled"


class Scope(StrEnum):
    """What a caller may do; none includes another."""

    UPLOAD = "upload"  # start work, and change what comes of it
    READ = "read"
    ADMIN = "admin"  # see what concerns all tenants


OPEN_REQUEST = frozenset({RequestStatus.PENDING, RequestStatus.PROCESSING})
ENDED_REQUEST = frozenset(RequestStatus) - OPEN_REQUEST


class Step(NamedTuple, Generic[S]):
    """A change of state that is allowed; the ledger makes each by one conditional update."""

    sources: frozenset[S]
    targets: frozenset[S]


# Of a request: the first deal, its end, its end because a client wants it, and a second chance
# for images that failed.
START = Step(frozenset({RequestStatus.PENDING}), frozenset({RequestStatus.PROCESSING}))
END = Step(
    frozenset({RequestStatus.PROCESSING}),
    frozenset({RequestStatus.COMPLETED, RequestStatus.PARTIAL, RequestStatus.FAILED}),
)
CANCEL = Step(OPEN_REQUEST, frozenset({RequestStatus.CANCELLED}))
REOPEN = Step(
    frozenset({RequestStatus.PROCESSING, RequestStatus.PARTIAL, RequestStatus.FAILED}),
    frozenset({RequestStatus.PROCESSING}),
)

# Of an image: its end, its end with its request's, and a second chance.
FINISH_IMAGE = Step(
    frozenset({ImageStatus.PENDING}), frozenset({ImageStatus.COMPLETED, ImageStatus.FAILED})
)
CANCEL_IMAGE = Step(frozenset({ImageStatus.PENDING}), frozenset({ImageStatus.CANCELLED}))
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


_MOST_FIELDS = 20  # more than any shape has


def _few(value: Any) -> Any:
    """Pydantic remembers whatever is wrong with each field: with 500,000 that takes 1 GB."""
    if isinstance(value, dict) and len(value) > _MOST_FIELDS:
        raise ValueError(f"has {len(value)} fields, more than are known")
    return value


class Shape(BaseModel):
    """What clients send and get: its names in camelCase, and no others."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, serialize_by_alias=True
    )


class Body(Shape):
    """What clients post as JSON: a text is no number, null is as if the field were left out."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if isinstance(_few(value), dict) and None in value.values():
            optional = cls._optional()
            return {n: v for n, v in value.items() if v is not None or n not in optional}
        return value

    @classmethod
    def _optional(cls) -> set[str]:
        return {f.alias or n for n, f in cls.model_fields.items() if not f.is_required()}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = handler(core_schema)
        properties = handler.resolve_ref_schema(made)["properties"]
        for name in cls._optional():
            schema = properties[name]
            if {"type": "null"} not in schema.get("anyOf", ()):
                about = {k: schema.pop(k) for k in ("default", "description") if k in schema}
                properties[name] = {"anyOf": [schema, {"type": "null"}], **about}
        return made


class Recipe(Body):
    """How the images of a request are to be encoded; the ``options`` of an upload."""

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


_HEADER_NAME = re.compile(r"authorization|x-(?!forwarded-)[a-z0-9][a-z0-9-]{0,60}", re.IGNORECASE)
_HEADER_VALUE = re.compile(r"[!-~]([ -~]{0,998}[!-~])?")  # printable ASCII, no blanks around


def _allowed_header(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("only Authorization and X-... can be set, but not X-Forwarded-...")
    return name


def _sendable(value: SecretStr) -> SecretStr:
    if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
        raise ValueError("a header's value is 1 to 1000 printable ASCII characters")
    return value


def _usable(secret: SecretStr) -> SecretStr:
    return SecretStr(check_webhook_secret(secret.get_secret_value()))


WebhookSecret = Annotated[
    SecretStr,
    AfterValidator(_usable),
    Field(description="whsec_...: signs instead of the service's own secrets. Never shown again."),
]
WebhookHeaders = Annotated[
    dict[
        Annotated[str, AfterValidator(_allowed_header)],
        Annotated[SecretStr, AfterValidator(_sendable)],
    ],
    BeforeValidator(_few),
    Field(max_length=10, description="Sent along: Authorization and X-... Never shown again."),
]


class Receiver(Body):
    """Who takes a webhook, and what it wants to be sent along."""

    url: str = Field(description="http or https URL.")
    secret: WebhookSecret | None = None
    headers: WebhookHeaders = Field(default_factory=dict)

    @field_validator("headers")
    @classmethod
    def _each_once(cls, headers: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("a header is given twice")
        return headers


# Not strict: JSON has no events, but strings.
Events = Annotated[
    list[Annotated[Event, Field(strict=False)]], FailFast(), Field(strict=False, min_length=1)
]


class Subscription(Receiver):
    """How the end of a request is to be announced; the ``webhook`` of an upload."""

    events: Events = Field(
        default=list(Event), description="What to announce; left out, every end."
    )


def event_type(status: RequestStatus) -> Event:
    """The event that announces a finished request: ``request.completed`` and its like.

    Raises:
        ValueError: a request in this status is not finished, so there is nothing to announce.
    """
    if status in OPEN_REQUEST:
        raise ValueError(f"a {status} request is not finished and has no event")
    return Event(f"request.{status.lower()}")
