"""Erasures that the bucket refuses: they are tried again after the others, and keep the reason.

An object may be under a hold or a retention policy, and the account may have no right to delete. That
lasts, so each try waits longer than the one before, and other erasures go on meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import ASCENDING

from imgsvc.domain import backoff
from imgsvc.ledger.clocks import current_time, is_past
from imgsvc.ledger.documents import Document
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import Store

# Up to an hour: after a hold is lifted, that is the longest wait.
_WAITS_S = backoff.exponential(14, 1.0)
_AWAY_S = 60.0  # at most, while the bucket only cannot be reached


@dataclass(frozen=True, slots=True)
class RefusedErasure:
    """An erasure that waits because the bucket failed."""

    request_id: str
    tries: int
    reason: str  # of the last one
    again_at: datetime


class Refusals:
    """Requests that could not be erased, or swept up after.

    Args:
        store: the database.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._requests = store.requests

    async def refuse(self, request_id: str, reason: str, *, passing: bool) -> float:
        """Have the erasure of a request wait because the bucket failed.

        Args:
            request_id: which request.
            reason: for the operator.
            passing: the bucket is away, and refuses nothing.

        Returns:
            Seconds until it is tried again.
        """
        now = current_time()
        with translated():
            found = await self._requests.find_one({"_id": request_id}, {"refused.tries": 1})
            tries: int = ((found or {}).get("refused") or {}).get("tries", 0) + 1
            wait_s = _WAITS_S[min(tries, len(_WAITS_S)) - 1]
            if passing:
                wait_s = min(wait_s, _AWAY_S)
            refused = {
                "tries": tries,
                "reason": reason,
                "at": now + timedelta(seconds=wait_s),
                "setAt": now,
            }
            await self._store.write(
                "refuse_erasure",
                self._requests.update_one,
                {"_id": request_id, "$or": _TO_BE_ERASED},
                {"$set": {"refused": refused}},
            )
        return wait_s

    async def find(self, limit: int, request_id: str | None = None) -> list[RefusedErasure]:
        """Erasures that wait because the bucket failed, those due first come first; or one of them."""
        wanted: Document = {"refused.at": {"$exists": True}}
        if request_id is not None:
            wanted["_id"] = request_id
        with translated():
            cursor = self._requests.find(wanted, {"refused": 1}).sort("refused.at", ASCENDING)
            return [
                RefusedErasure(
                    request_id=found["_id"],
                    tries=found["refused"]["tries"],
                    reason=found["refused"]["reason"],
                    again_at=found["refused"]["at"],
                )
                async for found in cursor.limit(limit)
            ]

    async def count(self) -> int:
        """How many erasures wait because the bucket failed."""
        with translated():
            count: int = await self._requests.count_documents({"refused.at": {"$exists": True}})
        return count

    async def retry_now(self, request_id: str) -> bool:
        """Have a refused erasure tried again now; False if there is none."""
        with translated():
            written = await self._store.write(
                "erase_at_once",
                self._requests.update_one,
                {"_id": request_id, "refused.at": {"$exists": True}},
                {"$set": {"refused.at": current_time()}},
            )
        return bool(written.matched_count)


_TO_BE_ERASED = [{"erasing": {"$exists": True}}, {"sweepFrom": {"$exists": True}}]


def due_again(now: datetime) -> Document:
    """The condition that a refused erasure is to be tried again."""
    return is_past("refused.at", "refused.setAt", now)
