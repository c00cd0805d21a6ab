"""One call: its address, what answers it, and what the OpenAPI document says of it."""

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
        path: with ``{id}`` where a request's id stands.
        handler: answers it.
        summary: one line for the document.
        answers: status -> shape of the body, or its media type where it is not JSON.
        refusals: statuses that come with a problem.
        query: shape of the query; a call of clients without one takes none.
        headers: shape of the headers that mean something.
        body: media type -> shape of the body.
        examples: media type -> a body that is accepted; one for each.
        body_may_be_missing: then it is as if it were ``{}``.
        scope: what a caller must be allowed; ``docs``: as ``[auth] protect_docs`` says; ``open``:
            nothing. It names the rate limit that counts the call, too, if there is one.
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
