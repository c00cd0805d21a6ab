"""Refusals, as problem+json (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http import responses
from imgsvc.reports.columns import INPUTS

MEDIA_TYPE = "application/problem+json"


class RefusedError(ServiceError):
    """A ``ServiceError`` whose answer needs headers of its own."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str | None = None,
        *,
        headers: Mapping[str, str],
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, detail, retry_after_s=retry_after_s)
        self.headers = headers


def response(error: ServiceError) -> web.Response:
    """The answer to a call that failed with this error."""
    status = error.code.status
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": error.code.name,
        "detail": error.detail,
    }
    if error.errors is not None:
        body["errors"] = error.errors
    headers = dict(error.headers) if isinstance(error, RefusedError) else {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return responses.json(body, status=status, content_type=MEDIA_TYPE, headers=headers)


def invalid(loc: Sequence[str | int], msg: str) -> ServiceError:
    """The refusal of a body or query, for what is wrong at one place."""
    problems = ValidationProblems()
    problems.add(loc, msg)
    return refusal(ErrorCode.VALIDATION_FAILED, problems)


def refusal(code: ErrorCode, problems: ValidationProblems) -> ServiceError:
    """The refusal of something that has these problems; its detail is the first of them."""
    first, *others = problems.listed
    place = _in_words(first["loc"])
    more = len(others) + problems.more
    detail = f"{place}: {first['msg']}" if place else str(first["msg"])
    return ServiceError(
        code, f"{detail} (and {more} more)" if more else detail, errors=problems.listed
    )


def _in_words(loc: Sequence[str | int]) -> str:
    """A place in words."""
    match loc:
        case ["line", number]:
            return f"Line {number}"
        case ["line", number, str(column)]:
            return f"Line {number}, column {column}"
        case ["line", number, "inputUrls", int(index)]:
            return f"Line {number}, column {INPUTS}, URL {index + 1}"
    return ".".join(map(str, loc))
