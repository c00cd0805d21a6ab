"""The version of the ledger's schema, and the way from one version to the next.

A document in the collection ``meta`` has it: ``{"_id": "schema", "version": n}``. A database
without one has version 1, that of the time before there was such a document. A replica brings the
database to its own version when it starts, one step after the other, each by one replica: the
others wait for it. A database that is newer is not touched.

A migration must be safe to run again, because its replica may die in its middle or lose its lock
to a clock that is wrong; and beside replicas of the version before, which work on until they notice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.errors import DuplicateKeyError, PyMongoError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime import logs
from imgsvc.runtime.cancellation import cancel_and_wait
from imgsvc.runtime.settings import SettingsError

Migration = Callable[[Any], Awaitable[None]]

MIGRATIONS: tuple[Migration, ...] = ()
"""The first leads from version 1 to version 2, and so on; given the database."""

_ID = {"_id": "schema"}
_LOCK_S = 60.0  # after this a replica that died is taken over from
_RENEW_S = _LOCK_S / 4

_log = logs.get("ledger")


class Schema:
    """The version of one database.

    Args:
        database: the driver's.
        migrations: all there are.
        replica: who holds the lock.
    """

    def __init__(self, database: Any, migrations: Sequence[Migration], replica: str) -> None:
        self._database = database
        self._meta = database["meta"]
        self._migrations = migrations
        self._replica = replica

    @property
    def known(self) -> int:
        """The version that this code is of."""
        return len(self._migrations) + 1

    async def check(self) -> int:
        """The version of the database, if it is one that this code understands.

        Raises:
            SettingsError: it is newer.
            PyMongoError: it could not be found out.
        """
        version: int = (await self._meta.find_one(_ID) or {}).get("version", 1)
        if version > self.known:
            raise SettingsError(
                f"the database {self._database.name} has schema version {version}, made by a newer "
                f"imgsvc; this one knows {self.known} and leaves it alone: run the newer one, or "
                "name another database in [mongo]"
            )
        return version

    async def bring_up(self) -> None:
        """Bring the database to the version of this code.

        Raises:
            SettingsError: it is newer; nothing was changed.
            ServiceError: UNAVAILABLE while another replica is at it.
            PyMongoError: it could not be done; what was done stays.
        """
        with contextlib.suppress(DuplicateKeyError):  # another replica was quicker
            await self._meta.update_one(_ID, {"$setOnInsert": {"version": 1}}, upsert=True)
        for step in range(await self.check(), self.known):
            await self._migrate(step)

    async def _migrate(self, version: int) -> None:
        """Take one step, if no other replica does."""
        async with self._lock(version):
            _log.info("ledger.migrating", version=version + 1)
            await self._migrations[version - 1](self._database)
            counted = await self._meta.update_one(
                {**_ID, "version": version, "lock.by": self._replica},
                {"$set": {"version": version + 1}, "$unset": {"lock": ""}},
            )
            if not counted.matched_count:
                raise self._taken(version)
        _log.info("ledger.migrated", version=version + 1)

    def _taken(self, version: int) -> ServiceError:
        return ServiceError(
            ErrorCode.UNAVAILABLE,
            f"Another replica brings the ledger to version {version + 1}.",
            retry_after_s=1,
        )

    @contextlib.asynccontextmanager
    async def _lock(self, version: int) -> AsyncIterator[None]:
        free = [{"lock": {"$exists": False}}, {"lock.until": {"$lt": datetime.now(UTC)}}]
        taken = await self._hold({**_ID, "version": version, "$or": free})
        if not taken:
            raise self._taken(version)
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            await cancel_and_wait(renewing)
            with contextlib.suppress(PyMongoError):  # it ends by itself
                await self._meta.update_one(
                    {**_ID, "lock.by": self._replica}, {"$unset": {"lock": ""}}
                )

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            with contextlib.suppress(PyMongoError):
                await self._hold({**_ID, "lock.by": self._replica})

    async def _hold(self, where: dict[str, Any]) -> bool:
        until = datetime.now(UTC) + timedelta(seconds=_LOCK_S)
        lock = {"by": self._replica, "until": until}
        held = await self._meta.update_one(where, {"$set": {"lock": lock}})
        return bool(held.matched_count)
