"""The journal of uploads that are being written, so that one that breaks off leaves nothing behind.

An upload gets an entry before it gets products. An upload with the same ``Idempotency-Key`` finds the
entry and goes on where the first one stopped, under the same id; writing the same documents twice
changes nothing. Without a key nobody else knows the id, so an upload that did not become a request
is removed.

Sweeping looks at entries that are due. The times are those of replicas, whose clocks may jump. So an
upload that seems late is only condemned at first, and its writer checks for that before the last
step. It is removed at the next look, unless it was taken up in between.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.documents import ERASED, Document, is_erased
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.new_requests import NewRequest
from imgsvc.ledger.store import Store

_SWEEP_AT_MOST_S = 60.0
_BATCH = 500


class _State(StrEnum):
    WRITING = "WRITING"  # or written
    CONDEMNED = "CONDEMNED"
    REMOVING = "REMOVING"


class Journal:
    """Uploads that are, or were, being written.

    Args:
        store: the database.
        write_s: how long an upload may take to write.
    """

    def __init__(self, store: Store, write_s: float) -> None:
        self._store = store
        self._requests = store.requests
        self._products = store.products
        self._intakes = store.intakes
        self._write_s = write_s

    @property
    def sweep_every_s(self) -> float:
        """How often ``sweep`` is to be called."""
        return min(_SWEEP_AT_MOST_S, self._write_s)

    async def accepted_before(self, new: NewRequest) -> str | None:
        """The id of the request that was accepted with this upload's key, or None.

        Raises:
            ServiceError: IDEMPOTENCY_CONFLICT if the key came with something else.
        """
        if not new.idempotency:
            return None
        with translated():
            entry = await self._intakes.find_one({"_id": _entry_id(new)})
            if not entry or entry["keepUntil"] <= current_time():
                return None
            found = await self.find_request(entry["request"])
            if found and is_erased(found):
                return None  # as if the key had never been seen
            _check_same(entry, new)
            return entry["request"] if found else None

    async def open_entry(self, new: NewRequest) -> NewRequest:
        """Write an upload's entry, or take up the one of an earlier upload with its key.

        Returns:
            The upload, under the id of the earlier one if there is one.

        Raises:
            ServiceError: IDEMPOTENCY_CONFLICT; UNAVAILABLE if the earlier one is being removed.
        """
        entry_id = _entry_id(new)
        for _ in range(3):
            now = current_time()
            entry = {
                "_id": entry_id,
                "request": new.id,
                "digest": new.idempotency.digest if new.idempotency else None,
                "keepUntil": now
                + timedelta(seconds=new.idempotency.keep_s if new.idempotency else 0),
                "checkAt": self._check_at(),
                "state": _State.WRITING,
            }
            try:
                await self._store.write("open_entry", self._intakes.insert_one, entry)
            except DuplicateKeyError:
                pass
            else:
                return new
            found = await self._intakes.find_one({"_id": entry_id})
            if not found:
                continue
            accepted = await self.find_request(found["request"])
            if accepted and (found["keepUntil"] <= now or is_erased(accepted)):
                # As if the key had never been seen; but not what another upload made of that.
                this = {"_id": entry_id, "request": found["request"]}
                await self._store.write("forget_entry", self._intakes.delete_one, this)
                continue
            if not await self._take_up(found, new):
                break
            return replace(new, id=found["request"])
        raise ServiceError(ErrorCode.UNAVAILABLE, retry_after_s=1)

    async def _take_up(self, entry: Document, new: NewRequest) -> bool:
        _check_same(entry, new)
        written = await self._store.write(
            "take_up_entry",
            self._intakes.update_one,
            {"_id": entry["_id"], "state": {"$ne": _State.REMOVING}},
            {"$set": {"state": _State.WRITING, "checkAt": self._check_at()}},
        )
        return bool(written.matched_count)

    async def is_whole(self, new: NewRequest) -> bool:
        """Whether nothing that was written of an upload can be gone."""
        entry = {"_id": _entry_id(new), "request": new.id, "state": _State.WRITING}
        return bool(await self._intakes.find_one(entry, {"_id": 1}))

    async def sweep(self) -> int:
        """Remove uploads that broke off, and forget keys whose time is over.

        Returns:
            How many uploads had broken off.
        """
        removed = 0
        with translated():
            while True:
                due = self._intakes.find({"checkAt": {"$lte": current_time()}}).limit(_BATCH)
                entries = [entry async for entry in due]
                removed += await self._sweep(entries)
                if len(entries) < _BATCH:
                    return removed

    async def _sweep(self, entries: list[Document]) -> int:
        ids = [entry["request"] for entry in entries]
        accepted = await self._store.by_key(self._requests, ids, *ERASED)
        now = current_time()
        keep, forget, removed = [], [], 0
        for entry in entries:
            if entry["request"] not in accepted:
                removed += await self._remove(entry)
            elif entry["keepUntil"] > now and not is_erased(accepted[entry["request"]]):
                keep.append(entry)
            else:
                forget.append(entry["_id"])
        if keep:
            await self._store.write(
                "keep_entries",
                self._intakes.bulk_write,
                [
                    UpdateOne(
                        {"_id": entry["_id"]},
                        {"$set": {"state": _State.WRITING, "checkAt": entry["keepUntil"]}},
                    )
                    for entry in keep
                ],
                ordered=False,
            )
        if forget:
            await self._forget(forget)
        return removed

    async def _forget(self, entry_ids: list[str]) -> None:
        await self._store.write(
            "forget_entries", self._intakes.delete_many, {"_id": {"$in": entry_ids}}
        )

    async def _remove(self, entry: Document) -> bool:
        """Condemn an upload, or remove it if it was condemned; whether it is gone."""
        condemned = entry["state"] != _State.WRITING
        again = current_time() + timedelta(seconds=self.sweep_every_s)
        # Taking it up moves its time, and then this update finds nothing.
        mine = await self._store.write(
            "condemn_entry",
            self._intakes.update_one,
            {"_id": entry["_id"], "checkAt": entry["checkAt"], "state": entry["state"]},
            {
                "$set": {
                    "state": _State.REMOVING if condemned else _State.CONDEMNED,
                    "checkAt": again,
                }
            },
        )
        if not mine.matched_count or not condemned:
            return False
        await self._store.write(
            "sweep_products", self._products.delete_many, {"request": entry["request"]}
        )
        await self._store.write(
            "forget_entry",
            self._intakes.delete_one,
            {"_id": entry["_id"], "state": _State.REMOVING},
        )
        return True

    async def find_request(self, request_id: str) -> Document | None:
        """The fields of a request that say whether it was erased; None if there is no request."""
        found: Document | None = await self._requests.find_one(
            {"_id": request_id}, dict.fromkeys(ERASED, 1)
        )
        return found

    async def erase(self, request_id: str) -> None:
        """Forget the upload of an erased request, so that repeating it makes a new one.

        Raises:
            PyMongoError: it could not be done.
        """
        await self._store.write("erase_entry", self._intakes.delete_many, {"request": request_id})

    def _check_at(self) -> datetime:
        return current_time() + timedelta(seconds=2 * self._write_s)


def _entry_id(new: NewRequest) -> str:
    if not new.idempotency:
        return new.id
    return hashlib.sha256(f"{new.tenant}\0{new.idempotency.key}".encode()).hexdigest()


def _check_same(entry: Document, new: NewRequest) -> None:
    if new.idempotency and entry["digest"] != new.idempotency.digest:
        raise ServiceError(ErrorCode.IDEMPOTENCY_CONFLICT)
