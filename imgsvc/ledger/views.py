"""A request as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime

from imgsvc.domain.model import OPEN_REQUEST, WebhookStatus
from imgsvc.ledger.documents import Document


def status_object(found: Document) -> Document:
    """A request as ``GET /status/{id}`` and webhooks show it.

    A webhook that does not want to hear of this end is shown as none.
    """
    webhook = found["webhook"]
    if webhook and not webhook["status"] and found["status"] not in OPEN_REQUEST:
        webhook = None
    return {
        "requestId": found["_id"],
        "status": found["status"],
        "processedProducts": found["processedProducts"],
        "totalProducts": found["totalProducts"],
        "processedImages": found["processedImages"],
        "failedImages": found["failedImages"],
        "totalImages": found["totalImages"],
        "bytesIn": found["bytesIn"],
        "bytesOut": found["bytesOut"],
        "sharedImages": found["sharedImages"],
        "reusedImages": found["reusedImages"],
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
