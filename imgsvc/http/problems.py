"""Refusals, as problem+json (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.http import answers

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 100

M = TypeVar("M", bound=BaseModel)


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
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return answers.json(body, status=status, content_type=MEDIA_TYPE, headers=headers)


def invalid(errors: Sequence[dict[str, Any]]) -> ServiceError:
    """The refusal of a body or query for these places; its detail tells the first."""
    first = errors[0]
    place = ".".join(map(str, first["loc"]))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ServiceError(
        ErrorCode.VALIDATION_FAILED,
        f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}",
        errors=list(errors[:MAX_ERRORS]),
    )


def validated(shape: type[M], values: Any, *, json: bytes | None = None) -> M:
    """``values`` (or the text in ``json``) as ``shape``.

    Raises:
        ServiceError: INVALID_JSON or VALIDATION_FAILED with each location.
    """
    try:
        return shape.model_validate_json(json) if json is not None else shape.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        unreadable = next((e for e in found if e["type"] == "json_invalid"), None)
        if unreadable:
            raise ServiceError(ErrorCode.INVALID_JSON, f"{unreadable['msg']}.") from None
        raise invalid([{"loc": list(e["loc"]), "msg": e["msg"]} for e in found]) from None


def query(shape: type[M], request: web.Request) -> M:
    """The query of a request as ``shape``.

    Raises:
        ServiceError: VALIDATION_FAILED.
    """
    values: Mapping[str, str] = request.query
    repeated = sorted({name for name in values if len(request.query.getall(name)) > 1})
    if repeated:
        raise invalid([{"loc": [name], "msg": "is given twice"} for name in repeated])
    return validated(shape, dict(values))
