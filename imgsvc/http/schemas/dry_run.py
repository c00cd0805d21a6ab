"""The answer to an upload that is only checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from imgsvc.domain.model import SerialNumber, Shape


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
