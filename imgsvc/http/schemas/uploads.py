"""What clients post to ``/api/upload``, and the answer."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, FailFast, Field

from imgsvc.domain.model import Body, Recipe, RequestStatus, Shape, Subscription
from imgsvc.http.schemas.fields import AnySerial, Text

_KEY = re.compile(r"[!-~]{1,255}")


Days = Annotated[
    float,
    Field(
        gt=0,
        le=36_500,
        allow_inf_nan=False,
        description="After so many the request is erased, its objects too, once it has ended.",
    ),
]


class Product(Body):
    """One product and its images."""

    serial_number: Annotated[
        AnySerial, Field(description="An integer of 64 bits, or a string; comes back as it is.")
    ]
    product_name: Text
    input_urls: Annotated[
        list[str],
        FailFast(),
        Field(
            min_length=1,
            description="http or https URLs of at most `[net] max_url_length` characters (8,192 "
            "unless set). Each is asked for byte for byte as it is posted; blanks and what is not "
            "ASCII are escaped.",
        ),
    ]


class Instructions(Body):
    """What is to be done with the products of an upload."""

    webhook_url: Annotated[
        str | None, Field(description="Told by a signed POST when the request has ended.")
    ] = None
    webhook: Annotated[
        Subscription | None, Field(description="Instead of webhookUrl, to choose more.")
    ] = None
    options: Recipe = Recipe()
    expires_in_days: Days | None = None


class Upload(Instructions):
    """What is posted as JSON to /api/upload."""

    products: Annotated[list[Product], Field(min_length=1)]


def _printable(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError("is not 1 to 255 printable ASCII characters without blanks")
    return key


class UploadHeaders(BaseModel):
    """What an upload may say beside its body."""

    idempotency_key: Annotated[
        str | None,
        AfterValidator(_printable),
        Field(
            alias="Idempotency-Key",
            description="Makes repeating an upload safe: the same key with the same content gets "
            "the first answer again, for as long as [http] idempotency_ttl_s.",
        ),
    ] = None


class Form(Shape):
    """What is posted as multipart/form-data to /api/upload."""

    file: Annotated[
        str,
        Field(
            description="CSV with the columns Serial Number, Product Name, Input Image Urls, "
            "in UTF-8 or the charset that the part's Content-Type names.",
            json_schema_extra={"format": "binary"},
        ),
    ]
    webhook_url: str | None = None
    webhook: Annotated[str | None, Field(description="`webhook` as JSON.")] = None
    options: Annotated[str | None, Field(description="`options` as JSON.")] = None
    expires_in_days: Days | None = None


class UploadQuery(Shape):
    """How an upload is meant."""

    dry_run: Annotated[
        bool,
        Field(alias="validate", description="Tell what is wrong or double; nothing is stored."),
    ] = False


class CsvQuery(UploadQuery):
    """What goes beside a text/csv body."""

    webhook_url: str | None = None
    webhook: Annotated[
        str | None, Field(description="`webhook` as JSON, without secret and headers.")
    ] = None
    options: Annotated[str | None, Field(description="`options` as JSON.")] = None
    expires_in_days: Days | None = None


class Accepted(Shape):
    """The request is in the ledger; it will be worked on."""

    request_id: str
    status: Literal[RequestStatus.PENDING]
