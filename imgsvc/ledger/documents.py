"""What is true of any document of the ledger."""

from __future__ import annotations

from typing import Any

from imgsvc.domain.model import Step

Document = dict[str, Any]

NOBODY = "nobody"  # the tenant of all that comes in while nobody has to say who they are
ERASED = ("erasing", "erasedAt")  # fields of a request that say so


def is_erased(request: Document) -> bool:
    """Whether a request's data are gone, or are about to go."""
    return any(request.get(field) is not None for field in ERASED)


def allowed(step: Step[Any], status: str = "status") -> Document:
    """The condition that a step may be taken.

    Args:
        step: from one status to another.
        status: the field that has the status.
    """
    return {status: {"$in": sorted(step.sources)}}
