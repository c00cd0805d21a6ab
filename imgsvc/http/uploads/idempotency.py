"""The ``Idempotency-Key`` of an upload, by which a repeat is recognised."""

from __future__ import annotations

from aiohttp import web

from imgsvc.http import problem_details
from imgsvc.http.input import schema_validation
from imgsvc.http.schemas.uploads import UploadHeaders
from imgsvc.http.uploads.read import UploadBody
from imgsvc.ledger import Idempotency

_HEADER = "Idempotency-Key"


def repeat(request: web.Request, body: UploadBody, keep_s: float) -> Idempotency | None:
    """What identifies an upload when it is repeated; None if the client gave no key.

    Args:
        request: the call.
        body: what was posted; the same key with another body is refused later.
        keep_s: how long the key is remembered.

    Raises:
        ServiceError: VALIDATION_FAILED.
    """
    given = request.headers.getall(_HEADER, [])
    if not given:
        return None
    if len(given) > 1:
        raise problem_details.invalid([_HEADER], "is given twice")
    key = schema_validation.validated(UploadHeaders, {_HEADER: given[0]}).idempotency_key
    return Idempotency(str(key), body.digest(), keep_s)
