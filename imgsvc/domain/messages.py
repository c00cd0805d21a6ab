"""What travels in the mailboxes: frozen, typed, ids and facts only.

URLs and options stay in the ledger and bytes in the spool; a message says which image it is
about and what the stage before has found out.
"""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from imgsvc.domain.model import Recipe

VERSION: Literal[1] = 1

Stage = Literal["fetch", "compress", "upload"]
Times = Annotated[dict[Stage, int], Field(default_factory=dict)]
"""Milliseconds that the stages so far worked on the image, waiting for their turn left out."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageJob(_Frozen):
    """One image that has work to be done.

    Attributes:
        call_id: names the HTTP call it came with.
        attempt: at fetching it, from 1.
        turn: the number of the retry; tells it from stale messages of an earlier one.
        copied: other images of the request share its end.
        priority: its client is waiting for it, since little of its request is left to do. It is
            called ``hurry`` on the wire, where Lua scripts and older versions read it.
    """

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    v: Literal[1] = VERSION
    request_id: str
    call_id: str = ""
    product: Annotated[int, Field(ge=0)]
    index: Annotated[int, Field(ge=0)]
    attempt: Annotated[int, Field(ge=1)] = 1
    turn: Annotated[int, Field(ge=0)] = 0
    copied: Annotated[bool, Field(exclude_if=operator.not_)] = False
    priority: Annotated[bool, Field(alias="hurry", exclude_if=operator.not_)] = False

    @property
    def key(self) -> str:
        """What makes two jobs the same work, whatever their attempt and turn."""
        return f"{self.request_id}/{self.product}-{self.index}"


class WebhookJob(_Frozen):
    """One webhook that is due; ``call_id`` names the HTTP call it came with."""

    v: Literal[1] = VERSION
    request_id: str
    call_id: str = ""

    @property
    def key(self) -> str:
        """What makes two jobs the same work."""
        return f"{self.request_id}/webhook"


class Validators(_Frozen):
    """What an origin says of a file, so that it can be asked later whether it is still so."""

    etag: str | None = None
    modified: str | None = None


class Source(_Frozen):
    """What a file at an origin was like when it was fetched.

    Attributes:
        key: under which it is remembered.
        blake3: the digest of all of it, in hex.
        validators: by which its origin knows it again.
    """

    key: str
    blake3: str
    validators: Validators


class Fetched(_Frozen):
    """What the Fetcher found out: the source lies in the spool."""

    file: str
    bytes_in: int
    recipe: Recipe
    source: Source | None = None
    ms: Times


class Compressed(_Frozen):
    """What the Compressor found out: the result lies in the spool."""

    file: str
    bytes_in: int
    bytes_out: int
    format: str
    width: int
    height: int
    note: str
    source: Source | None = None
    ms: Times


class Reused(_Frozen):
    """What the Fetcher found out: the source is as it was when this object was made of it."""

    source: Source
    output: str
    bytes_in: int
    bytes_out: int
    format: str
    width: int
    height: int
    note: str
    ms: Times
