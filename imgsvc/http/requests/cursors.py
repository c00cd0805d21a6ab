"""Cursors: the position where the next page begins, as an opaque text."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from imgsvc.domain.errors import ServiceError
from imgsvc.http import problem_details


def encode(position: list[Any]) -> str:
    """A position as a cursor."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def decode(cursor: str) -> list[Any]:
    """The position that a cursor was made from.

    Raises:
        ServiceError: VALIDATION_FAILED.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = orjson.loads(base64.urlsafe_b64decode(padded))
    except (binascii.Error, ValueError):
        position = None
    if not isinstance(position, list) or len(position) != 2:  # noqa: PLR2004 - as made above
        raise invalid()
    return position


def invalid() -> ServiceError:
    """The refusal of a text that is no cursor of the call it was sent to."""
    return problem_details.invalid(
        ["cursor"], "is not a cursor; pass nextCursor of the page before"
    )
