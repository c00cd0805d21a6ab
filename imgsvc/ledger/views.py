"""A request as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime

from imgsvc.domain.model import OPEN_REQUEST, WebhookStatus
from imgsvc.ledger.documents import Document

_AS_KEPT = (
    "status",
    "processedProducts",
    "totalProducts",
    "processedImages",
    "failedImages",
    "totalImages",
    "bytesIn",
    "bytesOut",
    "sharedImages",
    "reusedImages",
)
"""What a client sees as the ledger keeps it, under the same names."""


def status_object(found: Document) -> Document:
    """A request as ``GET /status/{id}`` and webhooks show it.

    A webhook that does not want to hear of this end is shown as none.
    """
    webhook = found["webhook"]
    if webhook and not webhook["status"] and found["status"] not in OPEN_REQUEST:
        webhook = None
    return {
        "requestId": found["_id"],
        **{name: found[name] for name in _AS_KEPT},
        "createdAt": iso(found["createdAt"]),
        "updatedAt": iso(found["updatedAt"]),
        "webhook": {
            "status": webhook["status"] or WebhookStatus.PENDING,
            "attempts": webhook["attempts"],
        }
        if webhook
        else None,
    }


def iso(at: datetime) -> str:
    """A time as ISO 8601 in UTC with ``Z``, in milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
