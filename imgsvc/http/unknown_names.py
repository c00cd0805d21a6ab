"""Advice on a name that is not known: the name that was probably meant, or those that exist."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel


def advice(name: str, known: Collection[str]) -> str:
    """What is wrong with a name, and the remedy.

    Args:
        name: as the client wrote it.
        known: all that it could be.
    """
    meant = next((each for each in known if _bare(each) == _bare(name)), None)
    if meant:
        return f"is not known; did you mean {meant}?"
    if not known:
        return "is not known; leave it out, there is none here"
    return f"is not known; there is {', '.join(known)}"


def known_at(shape: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The names that the object at a place has: a place of pydantic's, within a shape."""
    shapes = [shape]
    for step in loc:
        if isinstance(step, str):
            shapes = [
                below
                for each in shapes
                for field, about in each.model_fields.items()
                if step == (about.alias or field)
                for below in _shapes_in(about.annotation)
            ]
    return [about.alias or field for each in shapes for field, about in each.model_fields.items()]


def _shapes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _shapes_in(part)


def _bare(name: str) -> str:
    """A name without what spellings differ in: ``input_urls`` is ``inputUrls``."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
