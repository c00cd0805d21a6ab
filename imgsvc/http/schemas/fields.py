"""Fields that several schemas share: texts, serial numbers, times, cursors."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, PlainValidator

from imgsvc.domain.model import LONGEST_TEXT, SerialNumber

_INT64 = 2**63


_LOST_PLUS = re.compile(r"^(\S+[Tt]\S+) ([0-9]{2}:?[0-9]{2})$")  # in a query + is a blank


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def _in_a_cell(text: str) -> str:
    """A text that a CSV report can hold, and that can be posted again with it."""
    if not text.strip():
        raise ValueError("is blank; say something")
    if "\0" in text:
        raise ValueError("contains a NUL character, which no CSV can hold; leave it out")
    return text


Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), AfterValidator(_in_a_cell)]


def _serial(value: object) -> SerialNumber:
    """One message: pydantic would say what is wrong with it as an integer and as a string."""
    if isinstance(value, str):
        if 0 < len(value) <= LONGEST_TEXT:
            return _in_a_cell(value)
        raise ValueError(f"has {len(value)} characters; 1 to {LONGEST_TEXT} are allowed")
    if type(value) is not int:  # True is an int, too
        raise ValueError('is neither an integer like 7 nor a string like "SKU-7"')
    if not -_INT64 <= value < _INT64:
        raise ValueError("is an integer of more than 64 bits; send it as a string")
    return value


AnySerial = Annotated[
    SerialNumber,
    PlainValidator(
        _serial, json_schema_input_type=Annotated[int, Field(ge=-_INT64, lt=_INT64)] | Text
    ),
]


def _written_out(text: str) -> str:
    """Refuse a number: pydantic would take it for seconds or milliseconds since 1970."""
    if not _DATE.match(text):
        raise ValueError("a time is written like 2026-01-31T12:00:00Z")
    return _LOST_PLUS.sub(r"\1+\2", text)


def _in_utc(time: datetime) -> datetime:
    """The same moment in UTC, which may not exist at either end of the calendar."""
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
