"""The vocabulary of failure: every code a client can meet, once."""

from __future__ import annotations

import itertools
from enum import Enum
from typing import Any


class ErrorCode(Enum):
    """One reason for failing, as clients see it.

    Each member carries three facts: ``status``, the HTTP status when the code ends an HTTP
    request (images report their code inside a 200, so theirs is only nominal); ``retryable``,
    whether the same input may succeed later; and ``message``, a sentence fit for strangers.
    """

    status: int
    retryable: bool
    message: str

    def __init__(self, status: int, retryable: bool, message: str) -> None:
        self.status, self.retryable, self.message = status, retryable, message

    # What an HTTP request can be refused with.
    INVALID_JSON = 400, False, "The body is not readable JSON."
    INVALID_CSV = 422, False, "The CSV cannot be read."
    VALIDATION_FAILED = 422, False, "Some fields are missing, unknown or have wrong values."
    BODY_TOO_LARGE = 413, False, "The body is larger than this service accepts."
    UNSUPPORTED_MEDIA_TYPE = (
        415,
        False,
        "Send application/json, text/csv or multipart/form-data.",
    )
    UNAUTHENTICATED = 401, False, "Say who you are: send Authorization: Bearer with your key."
    FORBIDDEN = 403, False, "Your key does not allow this call."
    NOT_FOUND = 404, False, "There is nothing at this address."
    METHOD_NOT_ALLOWED = 405, False, "This address does not answer that method."
    NOT_FINISHED = 409, True, "The request is not finished yet."
    NOTHING_TO_RETRY = 409, False, "No failed image of the request matches."
    ALREADY_FINISHED = 409, False, "The request has finished already."
    WAS_CANCELLED = 409, False, "The request was cancelled; post what is still wanted anew."
    GONE = 410, False, "The request was erased."
    WEBHOOK_PENDING = 409, True, "The webhook is being sent already."
    NO_WEBHOOK = 409, False, "The request has no webhook, or one that does not want this event."
    IDEMPOTENCY_CONFLICT = (
        422,
        False,
        "This Idempotency-Key came with another upload before; use a new key for new content.",
    )
    REQUEST_TIMEOUT = 408, True, "The body arrived too slowly."
    OVERLOADED = 503, True, "Too much work is waiting already; nothing was accepted."
    RATE_LIMITED = 429, True, "Too many calls; slow down."
    QUOTA_EXCEEDED = 429, True, "Your quota is used up; nothing was accepted."
    BAD_REQUEST = 400, False, "The HTTP request cannot be understood."
    UNAVAILABLE = 503, True, "A part of the service is away; nothing was accepted."

    # What an image can fail with.
    URL_BLOCKED = 422, False, "The address is one this service does not connect to."
    URL_INVALID = 422, False, "The address is not a usable http or https URL."
    DNS_FAILED = 502, True, "The host name could not be resolved."
    CONNECT_FAILED = 502, True, "No HTTP connection to the origin could be made."
    FETCH_TIMEOUT = 504, True, "The origin took too long to answer."
    FETCH_STATUS = 502, False, "The origin answered with an error status."
    FETCH_BLOCKED = (
        502,
        False,
        "The origin answered with a page or a challenge for robots, not with the image.",
    )
    FETCH_TRUNCATED = 502, True, "The origin ended the transfer before it was complete."
    TOO_LARGE = 413, False, "The file is larger than this service fetches."
    TOO_MANY_REDIRECTS = 502, False, "The origin redirected too many times."
    NOT_AN_IMAGE = 422, False, "The file is not an image."
    UNSUPPORTED_FORMAT = 422, False, "The image format is not one this service accepts."
    IMAGE_CORRUPT = 422, False, "The image is damaged and cannot be decoded."
    TOO_MANY_PIXELS = 422, False, "The image has more pixels than this service decodes."
    TOO_MANY_FRAMES = 422, False, "The animation has more frames than this service decodes."
    CODEC_TIMEOUT = 422, False, "Decoding or encoding the image took too long."
    CODEC_CRASHED = 422, False, "Decoding the image crashed its worker process."
    STORAGE_REJECTED = 502, False, "The bucket refused the result."
    INTERNAL = 500, True, "Something went wrong on our side."


IMAGE_CODES = (*itertools.dropwhile(lambda code: code is not ErrorCode.URL_BLOCKED, ErrorCode),)
"""What an image can fail with."""


class ServiceError(Exception):
    """A failure with a code, raised wherever it is found and rendered at the edge.

    Args:
        code: why it failed.
        detail: one sentence for the client, naming field and remedy; the code's own message
            when left out.
        errors: for validation, ``{"loc", "msg"}`` entries, one per offending place.
        retry_after_s: seconds after which trying again makes sense.
        cause: what failed exactly, for operators: logged, never shown to clients.
        remedy: for the operator, if it does not pass by itself: logged, never shown to clients.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str | None = None,
        *,
        errors: list[dict[str, Any]] | None = None,
        retry_after_s: float | None = None,
        cause: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.code = code
        self.detail = detail or code.message
        self.errors = errors
        self.retry_after_s = retry_after_s
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"{code.name}: {self.detail}")
