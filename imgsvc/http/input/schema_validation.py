"""What clients send, checked against a schema; pydantic's errors become validation problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http import problem_details
from imgsvc.http.input import unknown_names

M = TypeVar("M", bound=BaseModel)


def validated(schema: type[M], values: Any) -> M:
    """The values as an instance of the schema.

    Raises:
        ServiceError: VALIDATION_FAILED with the place of each problem.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = ValidationProblems()
        collect(schema, error, problems)
        raise problem_details.refusal(ErrorCode.VALIDATION_FAILED, problems) from None


def collect(
    schema: type[BaseModel],
    error: ValidationError,
    problems: ValidationProblems,
    *,
    below: Sequence[str | int] = (),
) -> set[str | int]:
    """Add pydantic's errors to ``problems``.

    Args:
        schema: what was validated.
        error: pydantic's.
        problems: gets them.
        below: the place of the object that was validated.

    Returns:
        The fields of the schema that have a problem.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    for each in found:
        *above, name = each["loc"] or [""]
        msg = each["msg"].removeprefix("Value error, ")  # pydantic puts this before our text
        if each["type"] == "extra_forbidden":
            msg = unknown_names.advice(str(name), unknown_names.known_at(schema, above))
        elif each["type"] == "model_type":  # pydantic's text names a class of ours
            msg = "has to be a JSON object"
        problems.add([*below, *each["loc"]], msg)
    return {each["loc"][0] for each in found if each["loc"]}


def query(schema: type[M], request: web.Request) -> M:
    """The query of a call as an instance of the schema.

    Raises:
        ServiceError: VALIDATION_FAILED.
    """
    values: Mapping[str, str] = request.query
    problems = ValidationProblems()
    for name in sorted({name for name in values if len(request.query.getall(name)) > 1}):
        problems.add([name], "is given twice")
    if problems.count:
        raise problem_details.refusal(ErrorCode.VALIDATION_FAILED, problems)
    known = {field.alias for field in schema.model_fields.values()}
    # Browsers send the fields of a form that nobody filled in, too.
    return validated(
        schema, {name: text for name, text in values.items() if text or name not in known}
    )
