"""One route: a call's address, its handler, and what the OpenAPI document says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from imgsvc.domain.model import Scope
from imgsvc.http.keys import Handler


@dataclass(frozen=True, slots=True)
class Route:
    """One call.

    Attributes:
        method: in capitals.
        path: with ``{id}`` in place of a request's id.
        handler: answers the call; its name is the ``operationId``.
        summary: one line for the document.
        answers: status -> schema of the body, or its media type if it is not JSON.
        refusals: statuses of problem details.
        query: schema of the query; without one, a client's call takes no query.
        headers: schema of the headers that have a meaning.
        body: media type -> schema of the body.
        examples: media type -> a body that is accepted, one for each.
        body_may_be_missing: a missing body counts as ``{}``.
        scope: what the caller needs; ``docs``: as ``[auth] protect_docs`` says; ``open``: nothing.
            It also names the rate limit that counts the call, if there is one.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, type[BaseModel] | str]
    refusals: tuple[int, ...] = ()
    query: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None
    body: Mapping[str, type[BaseModel] | None] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)
    body_may_be_missing: bool = False
    scope: Scope | Literal["docs", "open"] = field(kw_only=True)
