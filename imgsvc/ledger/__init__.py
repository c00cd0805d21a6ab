"""The ledger: MongoDB holds the work, and what became of it.

Five collections. ``requests`` has one document for each request; ``products`` one for each
product, with its images embedded and ``open``, how many of them are not terminal, so that one
conditional update finishes an image exactly once. Products are written first and the request
last: a request exists when its document does. When it is erased a tombstone takes the place of
that. ``intakes`` has an entry for each upload that is being written, and for each
``Idempotency-Key`` while it is remembered. ``api_keys`` is apart from these: who may come in.
And ``meta`` has the version of all that.

The counters on a request serve ``/status`` while it runs. They are a cache: the end of a request
is decided by asking whether any product is still open, and its final numbers are counted anew.

Motor is used in ``client`` alone, and only through calls that PyMongo's ``AsyncMongoClient`` has too.
"""

from __future__ import annotations

from imgsvc.ledger.announcements import Announcements
from imgsvc.ledger.api_keys import USE_NOTED, ApiKeys
from imgsvc.ledger.erasure import Erasing
from imgsvc.ledger.images import Images
from imgsvc.ledger.intake import Intake
from imgsvc.ledger.records import (
    NOBODY,
    UNFINISHED,
    ApiKey,
    Choice,
    Completed,
    Delivery,
    Document,
    Ended,
    Erasure,
    Failed,
    FailedWebhook,
    NewProduct,
    NewRequest,
    OpenImages,
    OpenRequest,
    PendingDelivery,
    RefusedErasure,
    Repeat,
    Work,
    iso,
)
from imgsvc.ledger.sharing import CopiesEnded, Shared, Sharing
from imgsvc.ledger.sources import Remembered, Sources, source_key
from imgsvc.ledger.wishes import Wishes


class Ledger(Intake, Images, Sharing, Wishes, Announcements, Erasing, Sources, ApiKeys):
    """Everything the service remembers.

    Every method raises ``ServiceError(UNAVAILABLE)`` while MongoDB is away.
    """


__all__ = [
    "NOBODY",
    "UNFINISHED",
    "USE_NOTED",
    "ApiKey",
    "Choice",
    "Completed",
    "CopiesEnded",
    "Delivery",
    "Document",
    "Ended",
    "Erasure",
    "Failed",
    "FailedWebhook",
    "Ledger",
    "NewProduct",
    "NewRequest",
    "OpenImages",
    "OpenRequest",
    "PendingDelivery",
    "RefusedErasure",
    "Remembered",
    "Repeat",
    "Shared",
    "Work",
    "iso",
    "source_key",
]
