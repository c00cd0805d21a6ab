"""How an image ended, and how its document says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.messages import Times
from imgsvc.domain.model import ImageStatus
from imgsvc.ledger.documents import Document


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of an image that worked out."""

    output: str  # the object's name in the bucket
    checksum: str
    bytes_in: int
    bytes_out: int
    format: str
    width: int
    height: int
    note: str
    ms: Times = field(default_factory=dict)
    saved: Literal["shared", "reused"] | None = None  # how, if it took no work of its own


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of an image that did not."""

    code: ErrorCode
    detail: str
    ms: Times = field(default_factory=dict)


_RESULT: Mapping[str, str] = {
    "output": "output",
    "checksum": "checksum",
    "bytes_in": "bytesIn",
    "bytes_out": "bytesOut",
    "format": "format",
    "width": "width",
    "height": "height",
    "note": "note",
}
"""What a completed image has: attribute -> field of the document."""


def end_fields(end: Completed | Failed) -> Document:
    """The fields that an image's document gets when it ends."""
    if isinstance(end, Failed):
        return {
            "status": ImageStatus.FAILED,
            "error": {"code": end.code.name, "detail": end.detail},
            "ms": end.ms,
        }
    return {
        "status": ImageStatus.COMPLETED,
        **{name: getattr(end, attribute) for attribute, name in _RESULT.items()},
        "ms": end.ms,
        **({end.saved: 1} if end.saved else {}),
    }


def shared_end(image: Document) -> Completed | Failed | None:
    """The end of an image as its copies get it; None if it has none to share."""
    if image["status"] == ImageStatus.FAILED:
        return Failed(ErrorCode[image["error"]["code"]], image["error"]["detail"])
    if image["status"] != ImageStatus.COMPLETED:
        return None
    result = {attribute: image[name] for attribute, name in _RESULT.items()}
    return Completed(**result, saved="shared")
