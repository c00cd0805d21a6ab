"""The indexes that the ledger's queries need."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import OperationFailure

from imgsvc.domain.model import WebhookStatus
from imgsvc.ledger import mongo_errors
from imgsvc.runtime.settings import SettingsError

# A request has one of these while there is something to do about it, which is seldom.
_MARKS = ("reopen.n", "cancelling", "erasing", "expiresAt", "sweepFrom", "refused.at")


async def create_indexes(database: Any) -> None:
    """Create all indexes; nothing happens to those that are there.

    Raises:
        SettingsError: another index is in the way.
        PyMongoError: MongoDB cannot do it.
    """
    requests, products = database["requests"], database["products"]
    intakes, sources = database["intakes"], database["sources"]
    await _create(products, ("request", ASCENDING), ("n", ASCENDING))
    await _create(products, ("request", ASCENDING), ("open", ASCENDING), ("n", ASCENDING))
    await _create(intakes, ("checkAt", ASCENDING))
    await _create(intakes, ("request", ASCENDING))
    await _create(sources, ("at", ASCENDING))
    await _create(requests, ("status", ASCENDING), ("createdAt", ASCENDING))
    for mark in _MARKS:
        await _create(requests, (mark, ASCENDING), sparse=True)
    newest = (("createdAt", DESCENDING), ("_id", DESCENDING))
    await _create(requests, ("tenant", ASCENDING), *newest)
    await _create(requests, ("tenant", ASCENDING), ("status", ASCENDING), *newest)
    for key, status in (
        ("webhook.nextAt", WebhookStatus.PENDING),
        ("webhook.setAt", WebhookStatus.PENDING),
        ("updatedAt", WebhookStatus.FAILED),
    ):
        only = {"webhook.status": status}
        await _create(requests, (key, ASCENDING), partialFilterExpression=only)


async def _create(collection: Any, *keys: tuple[str, int], **options: Any) -> None:
    try:
        await collection.create_index([*keys], **options)
    except OperationFailure as error:
        if conflict := mongo_errors.index_conflict(error, collection.full_name):
            raise SettingsError(conflict) from None
        raise
