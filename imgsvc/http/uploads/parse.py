"""The syntax of an upload: JSON or CSV, and what is wrong with it as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http.input import strict_json
from imgsvc.http.input.strict_json import JsonError
from imgsvc.http.uploads.read import UploadBody
from imgsvc.reports import upload_csv
from imgsvc.reports.upload_csv import Sheet
from imgsvc.runtime.settings import Http


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an upload says, not validated yet.

    Attributes:
        media_type: how it was sent.
        products: the JSON objects, or the rows of the CSV with their own problems.
        instructions: everything else, by name.
        problems: what is wrong with the JSON.
        code: the refusal, if that is all that is wrong.
    """

    media_type: str
    products: list[Any] | Sheet
    instructions: Mapping[str, Any]
    problems: ValidationProblems
    code: ErrorCode = ErrorCode.VALIDATION_FAILED


def parse(body: UploadBody, limits: Http) -> Parsed:
    """Parse an upload; whatever is wrong is among the problems.

    Args:
        body: in UTF-8.
        limits: how many products and images there may be.
    """
    if body.media_type == "application/json":
        return _json(body.file, limits)
    problems = ValidationProblems()
    instructions = _instructions(body.fields, problems)
    sheet = upload_csv.parse(body.file, max_rows=limits.max_products)
    return Parsed(body.media_type, sheet, instructions, problems)


def _json(body: bytes, limits: Http) -> Parsed:
    problems = ValidationProblems()
    code = ErrorCode.VALIDATION_FAILED
    value: Any = {}
    if _holds_too_much(body, limits):
        problems.add(
            [],
            f"The body holds far more values than {limits.max_products} products and "
            f"{limits.max_images} images need; split it into several uploads.",
        )
    else:
        try:
            value = strict_json.parse(body)
        except JsonError as error:
            code = error.code
            problems.add(error.loc, str(error))
        else:
            if not isinstance(value, dict):
                problems.add([], "The body has to be a JSON object with products.")
                value = {}
            elif not isinstance(value.get("products"), list) or not value["products"]:
                problems.add(["products"], "is missing, empty or not a list of products")
                value["products"] = []
    products = value.pop("products", [])
    return Parsed("application/json", products, value, problems, code)


def _holds_too_much(body: bytes, limits: Http) -> bool:
    """Found out without parsing, which takes long and much memory for millions of small values."""
    products, images = limits.max_products, limits.max_images
    # Punctuation within strings is counted too, but there is little of it.
    return (
        body.count(b"[") + body.count(b"{") > 4 * products + 64
        or body.count(b",") > 8 * (products + images) + 512
    )


def _instructions(fields: Mapping[str, bytes], problems: ValidationProblems) -> dict[str, Any]:
    """The fields beside a CSV: all but one are JSON."""
    instructions: dict[str, Any] = {}
    for name, text in fields.items():
        if not text.strip():  # browsers send empty fields, too
            continue
        try:
            instructions[name] = text.decode() if name == "webhookUrl" else strict_json.parse(text)
        except UnicodeDecodeError:
            problems.add([name], "is not readable as UTF-8")
        except JsonError as error:
            problems.add([name, *error.loc], str(error))
    return instructions
