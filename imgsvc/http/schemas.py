"""The shapes of requests and answers; the OpenAPI document is generated from them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainValidator,
)

from imgsvc.domain.errors import IMAGE_CODES
from imgsvc.domain.model import (
    LONGEST_TEXT,
    Body,
    ImageStatus,
    Recipe,
    RequestStatus,
    SerialNumber,
    Shape,
    Subscription,
    WebhookStatus,
)


def _in_a_cell(text: str) -> str:
    """A text that a report can hold, and that can be posted again with it."""
    if not text.strip():
        raise ValueError("is blank; say something")
    if "\0" in text:
        raise ValueError("contains a NUL character, which no CSV can hold; leave it out")
    return text


Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), AfterValidator(_in_a_cell)]
_CODES = [code.name for code in IMAGE_CODES]
_KEY = re.compile(r"[!-~]{1,255}")
_INT64 = 2**63
_LOST_PLUS = re.compile(r"^(\S+[Tt]\S+) ([0-9]{2}:?[0-9]{2})$")  # in a query + is a blank
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def _written_out(text: str) -> str:
    """Pydantic would take a number for seconds, or milliseconds if there are many, since 1970."""
    if not _DATE.match(text):
        raise ValueError("a time is written like 2026-01-31T12:00:00Z")
    return _LOST_PLUS.sub(r"\1+\2", text)


def _in_utc(time: datetime) -> datetime:
    """The same moment; near the first and the last year there is none in UTC."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not within the years 1 to 9999") from None


Time = Annotated[
    AwareDatetime,
    BeforeValidator(_written_out),
    AfterValidator(_in_utc),
    Field(examples=["2026-01-31T12:00:00Z"]),
]
Cursor = Annotated[str | None, Field(description="`nextCursor` of the page before.")]
Days = Annotated[
    float,
    Field(
        gt=0,
        le=36_500,
        allow_inf_nan=False,
        description="After so many the request is erased, its objects too, once it has ended.",
    ),
]


def _serial(said: object) -> SerialNumber:
    """Told in one go: pydantic would tell what is wrong with it as a number and as a text."""
    if isinstance(said, str):
        if 0 < len(said) <= LONGEST_TEXT:
            return _in_a_cell(said)
        raise ValueError(f"has {len(said)} characters; 1 to {LONGEST_TEXT} are allowed")
    if type(said) is not int:  # True is an int, too
        raise ValueError('is neither an integer like 7 nor a string like "SKU-7"')
    if not -_INT64 <= said < _INT64:
        raise ValueError("is an integer of more than 64 bits; send it as a string")
    return said


AnySerial = Annotated[
    SerialNumber,
    PlainValidator(
        _serial, json_schema_input_type=Annotated[int, Field(ge=-_INT64, lt=_INT64)] | Text
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


class NoQuery(Shape):
    """Of calls without a query."""


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


class ValidationProblem(Shape):
    """Something that is wrong, and where: under ``products``, or in which line of a CSV."""

    loc: list[str | int]
    msg: str


class Duplicate(Shape):
    """What is there more than once; it is accepted, but may not be meant."""

    field: Literal["serialNumber", "inputUrl"]
    value: SerialNumber
    count: int
    locs: Annotated[list[list[str | int]], Field(description="The first five places.")]


class DryRun(Shape):
    """What would come of an upload."""

    valid: Annotated[bool, Field(description="Whether it would be accepted.")]
    products: int
    images: int
    distinct_urls: int
    problems: Annotated[list[ValidationProblem], Field(description="The first hundred.")]
    more_problems: Annotated[int, Field(description="Looking ends at 10,000.")]
    duplicates: Annotated[list[Duplicate], Field(description="The first hundred.")]
    more_duplicates: int


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


class Webhook(Shape):
    """Where the announcement stands."""

    status: WebhookStatus
    attempts: int


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


class ImageError(Shape):
    """Why an image failed."""

    code: str
    detail: str


class Image(Shape):
    """One image and what became of it."""

    serial_number: SerialNumber
    product_name: str
    product: int
    index: int
    input_url: str
    output_url: str | None
    status: ImageStatus
    error: ImageError | None
    bytes_in: int | None
    bytes_out: int | None
    format: str | None
    width: int | None
    height: int | None


class ImagesPage(Shape):
    """Images in input order."""

    images: list[Image]
    next_cursor: str | None


class ImagesQuery(Shape):
    """Which images."""

    cursor: Cursor = None
    limit: Annotated[int, Field(ge=1)] = 100
    status: ImageStatus | None = None


class ImageCounts(Shape):
    """Images by status."""

    total: int
    pending: int
    completed: int
    failed: int
    cancelled: int


class FormatSavings(Shape):
    """What was saved on the results of one format."""

    format: str
    images: int
    bytes_in: int
    bytes_out: int
    saved_share: float | None


class Percentiles(Shape):
    """So many percent of the images are at or below."""

    p50: float
    p90: float
    p99: float


class PerImage(Shape):
    """How the images that worked out are spread; null if there are none."""

    bytes_in: Percentiles | None
    bytes_out: Percentiles | None
    saved_share: Percentiles | None


class ErrorCount(Shape):
    """How many images failed with one code."""

    code: str
    images: int


class Origin(Shape):
    """How long a host took to send its images, the failed ones included."""

    origin: str
    images: int
    failed: int
    median_ms: int
    max_ms: int


class StageTimes(Shape):
    """Milliseconds that a stage worked on an image."""

    p50: int
    p95: int


class Stages(Shape):
    """The stages of the pipeline; null for one that no image has passed."""

    fetch: StageTimes | None
    compress: StageTimes | None
    upload: StageTimes | None


class SavingsReport(Shape):
    """What a request saved, where it came from, how long it took."""

    request_id: str
    status: RequestStatus
    partial: Annotated[bool, Field(description="Whether the request is not finished.")]
    images: ImageCounts
    bytes_in: int
    bytes_out: int
    saved_share: Annotated[float | None, Field(description="1 - bytesOut / bytesIn")]
    formats: list[FormatSavings]
    per_image: PerImage
    errors: list[ErrorCount]
    slowest_origins: Annotated[list[Origin], Field(description="Ten at most, by their median.")]
    stages_ms: Stages


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


class DownloadQuery(Shape):
    """Which report."""

    partial: Annotated[bool, Field(description="Also while the request is not finished.")] = False
    columns: Annotated[
        Literal["basic", "full"], Field(description="full adds error and size columns.")
    ] = "basic"
    only: Annotated[
        Literal["failed"] | None,
        Field(description="failed: only failed images, as a CSV that can be posted again."),
    ] = None
    bom: Annotated[
        bool | None,
        Field(description="Begin with a byte order mark, for Excel; left out, [http] csv_bom."),
    ] = None


class Attempt(Shape):
    """One attempt to deliver a webhook."""

    attempt: int
    at: datetime
    status: int | None
    latency_ms: int | None
    error: Annotated[
        str | None,
        Field(description="null: delivered. UNFINISHED: under way, or lost with its replica."),
    ]


class Deliveries(Shape):
    """The last 100 attempts, oldest first."""

    attempts: list[Attempt]
    next_attempt_at: datetime | None


class Replayed(Shape):
    """The webhook will be sent once more, in a new cycle of attempts."""

    request_id: str
    webhook: Webhook


class TestDelivery(Shape):
    """What came of a test."""

    delivered: bool
    status: Annotated[int | None, Field(description="Of the receiver's answer, if it gave one.")]
    latency_ms: int
    error: str | None


class Health(Shape):
    """The process runs."""

    status: Literal["ok"]


class Readiness(Shape):
    """Whether this replica can do its work, and what it lacks if not."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str]


class Problem(Shape):
    """Why a call was refused (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "code": "VALIDATION_FAILED",
                    "detail": "products.0.productName: Field required",
                    "errors": [{"loc": ["products", 0, "productName"], "msg": "Field required"}],
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[dict[str, Any]] | None = None
