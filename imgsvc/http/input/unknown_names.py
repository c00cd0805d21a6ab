"""Advice on a name that is not known: the name that was probably meant, or those that exist."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel


def advice(name: str, known: Collection[str]) -> str:
    """What is wrong with an unknown name, and the remedy.

    Args:
        name: as the client wrote it.
        known: all names that exist there.
    """
    meant = next((each for each in known if _bare(each) == _bare(name)), None)
    if meant:
        return f"is not known; did you mean {meant}?"
    if not known:
        return "is not known; leave it out, there is none here"
    return f"is not known; there is {', '.join(known)}"


def known_at(schema: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The field names of the object at this place (pydantic's ``loc``) within a schema."""
    schemas = [schema]
    for step in loc:
        if isinstance(step, str):
            schemas = [
                below
                for each in schemas
                for field, about in each.model_fields.items()
                if step == (about.alias or field)
                for below in _schemas_in(about.annotation)
            ]
    return [about.alias or field for each in schemas for field, about in each.model_fields.items()]


def _schemas_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _schemas_in(part)


def _bare(name: str) -> str:
    """A name for comparison: ``input_urls`` is the same as ``inputUrls``."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
