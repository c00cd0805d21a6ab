"""A request: its status, lists of requests, and what a client may do with one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from imgsvc.domain.errors import IMAGE_CODES
from imgsvc.domain.model import Body, RequestStatus, Shape
from imgsvc.http.schemas.fields import AnySerial, Cursor, Time
from imgsvc.http.schemas.webhooks import Webhook

_CODES = [code.name for code in IMAGE_CODES]


class Status(Shape):
    """Where a request stands; failed images count as processed."""

    request_id: str
    status: RequestStatus
    processed_products: int
    total_products: int
    processed_images: int
    failed_images: int
    total_images: int
    bytes_in: int
    bytes_out: int
    shared_images: Annotated[
        int, Field(description="Got the result of another image with the same address.")
    ]
    reused_images: Annotated[
        int, Field(description="Got an earlier request's result: their source was unchanged.")
    ]
    created_at: datetime
    updated_at: datetime
    webhook: Webhook | None


class RequestsPage(Shape):
    """Requests, newest first."""

    requests: list[Status]
    next_cursor: str | None


class RequestsQuery(Shape):
    """Which requests."""

    status: RequestStatus | None = None
    created_after: Time | None = None
    created_before: Time | None = None
    limit: Annotated[int, Field(ge=1)] = 50
    cursor: Cursor = None


def _known(code: str) -> str:
    if code not in _CODES:
        raise ValueError(f"is no error code of an image; these are {', '.join(_CODES)}")
    return code


Code = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": _CODES})]


class Retry(Body):
    """Which failed images are to be worked on again; left out, all."""

    codes: Annotated[
        list[Code] | None,
        Field(min_length=1, max_length=100, description="Those that failed with one of these."),
    ] = None
    products: Annotated[
        list[AnySerial] | None,
        Field(
            min_length=1,
            max_length=100,
            description="Those of these products. A string is a serialNumber, whether it was "
            "posted as a string or an integer. An integer is one if a product of the request has "
            "it as its serialNumber, else a product's number (`product`, from 0), else, if there "
            "are not so many products, a serialNumber that was posted as a string.",
        ),
    ] = None


class Changed(Shape):
    """The change is in the ledger; it will be carried out."""

    request_id: str
    status: RequestStatus


class Erased(Shape):
    """The request is hidden at once, and erased in the background."""

    request_id: str
    erased: Annotated[bool, Field(description="Whether that has been done.")]
