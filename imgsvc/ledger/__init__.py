"""The ledger: MongoDB holds the requests, and what became of them.

There are six collections. ``requests`` has a document for each request, and ``products`` one for
each product. A product's document embeds its images, and counts in ``open`` those that have not
ended, so that one conditional update ends an image exactly once. Products are written first and the
request last: a request exists when its document does. An erased request leaves a tombstone under its
key. ``intakes`` has an entry for each upload that is being written, and for each ``Idempotency-Key``
while it is remembered. ``sources`` remembers results, to use them again. ``api_keys`` has the
callers' keys. ``meta`` has the version of the schema.

The counters of a request serve ``/status`` while it runs. They are a cache: whether a request has
ended depends on its products alone, and its final numbers are counted anew.

``ledger`` composes the parts; each gets the store, and the other parts that it needs, in its
constructor. Only ``client`` imports motor, and only for calls that PyMongo's ``AsyncMongoClient`` has too.
"""

from __future__ import annotations

from imgsvc.ledger.api_keys import USE_NOTED, ApiKey
from imgsvc.ledger.backlog import OpenImages, OpenRequest, Work
from imgsvc.ledger.choices import Choice
from imgsvc.ledger.copies import CopiesEnded, Shared
from imgsvc.ledger.deliveries import Delivery, PendingDelivery
from imgsvc.ledger.delivery_log import UNFINISHED, FailedWebhook
from imgsvc.ledger.documents import NOBODY, Document
from imgsvc.ledger.ends import Completed, Failed
from imgsvc.ledger.erasures import Erasure
from imgsvc.ledger.images import Ended
from imgsvc.ledger.ledger import Ledger
from imgsvc.ledger.new_requests import Idempotency, NewProduct, NewRequest
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
    "Idempotency",
    "Ledger",
    "NewProduct",
    "NewRequest",
    "OpenImages",
    "OpenRequest",
    "PendingDelivery",
    "RefusedErasure",
    "Remembered",
    "Shared",
    "Work",
    "iso",
    "source_key",
]
