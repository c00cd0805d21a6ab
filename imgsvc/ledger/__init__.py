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

from imgsvc.ledger.api_keys import USE_NOTED, ApiKey
from imgsvc.ledger.backlog import OpenImages, OpenRequest, Work
from imgsvc.ledger.commands import Choice
from imgsvc.ledger.copies import CopiesEnded, Shared
from imgsvc.ledger.deliveries import Delivery, PendingDelivery
from imgsvc.ledger.delivery_log import UNFINISHED, FailedWebhook
from imgsvc.ledger.documents import NOBODY, Document
from imgsvc.ledger.ends import Completed, Failed
from imgsvc.ledger.erasures import Erasure
from imgsvc.ledger.images import Ended
from imgsvc.ledger.ledger import Ledger
from imgsvc.ledger.new_requests import NewProduct, NewRequest, Repeat
from imgsvc.ledger.refusals import RefusedErasure
from imgsvc.ledger.sources import Remembered, source_key
from imgsvc.ledger.views import iso

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
