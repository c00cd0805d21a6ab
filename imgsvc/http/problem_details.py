"""Refusals, as problem+json (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http import answers, names
from imgsvc.reports.columns import INPUTS

MEDIA_TYPE = "application/problem+json"

Place = Sequence[str | int]

M = TypeVar("M", bound=BaseModel)


class RefusedError(ServiceError):
    """A refusal that comes with headers of its own; else as ``ServiceError``."""

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
    """The answer that tells a client of a refusal."""
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
    return answers.json(body, status=status, content_type=MEDIA_TYPE, headers=headers)


def invalid(errors: Iterable[Mapping[str, Any]]) -> ServiceError:
    """The refusal of a body or query for these places."""
    problems = ValidationProblems()
    for error in errors:
        problems.add(error["loc"], error["msg"])
    return refusal(ErrorCode.VALIDATION_FAILED, problems)


def refusal(code: ErrorCode, problems: ValidationProblems) -> ServiceError:
    """The refusal of something for what was found in it; its detail tells the first."""
    first, *others = problems.listed
    place = _spoken(first["loc"])
    more = len(others) + problems.more
    said = f"{place}: {first['msg']}" if place else str(first["msg"])
    return ServiceError(code, f"{said} (and {more} more)" if more else said, errors=problems.listed)


def _spoken(loc: Place) -> str:
    """A place as a person says it."""
    match loc:
        case ["line", number]:
            return f"Line {number}"
        case ["line", number, str(column)]:
            return f"Line {number}, column {column}"
        case ["line", number, "inputUrls", int(index)]:
            return f"Line {number}, column {INPUTS}, URL {index + 1}"
    return ".".join(map(str, loc))


def validated(shape: type[M], values: Any) -> M:
    """``values`` as ``shape``.

    Raises:
        ServiceError: VALIDATION_FAILED with each location.
    """
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        problems = ValidationProblems()
        collect(shape, error, problems)
        raise refusal(ErrorCode.VALIDATION_FAILED, problems) from None


def collect(
    shape: type[BaseModel],
    error: ValidationError,
    problems: ValidationProblems,
    *,
    below: Place = (),
) -> set[str | int]:
    """Add what pydantic found, each place ``below`` another.

    Returns:
        The fields of the shape that something is wrong with.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    for each in found:
        *above, name = each["loc"] or [""]
        msg = each["msg"].removeprefix("Value error, ")  # pydantic's words before ours
        if each["type"] == "extra_forbidden":
            msg = names.advice(str(name), names.known_at(shape, above))
        elif each["type"] == "model_type":  # pydantic's words name a class of ours
            msg = "has to be a JSON object"
        problems.add([*below, *each["loc"]], msg)
    return {each["loc"][0] for each in found if each["loc"]}


def query(shape: type[M], request: web.Request) -> M:
    """The query of a request as ``shape``.

    Raises:
        ServiceError: VALIDATION_FAILED.
    """
    values: Mapping[str, str] = request.query
    repeated = sorted({name for name in values if len(request.query.getall(name)) > 1})
    if repeated:
        raise invalid([{"loc": [name], "msg": "is given twice"} for name in repeated])
    known = {field.alias for field in shape.model_fields.values()}
    # Forms send what nobody filled in, too.
    return validated(
        shape, {name: text for name, text in values.items() if text or name not in known}
    )
