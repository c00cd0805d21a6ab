"""The connection to MongoDB, its collections, and how all parts of the ledger read and write."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from pymongo import ASCENDING, UpdateOne
from pymongo.errors import PyMongoError

from imgsvc.ledger import mongo_errors
from imgsvc.ledger.client import connect
from imgsvc.ledger.documents import Document
from imgsvc.ledger.indexes import create_indexes
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.schema import MIGRATIONS, Migration, Schema
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.settings import Mongo, SettingsError

# A command costs more than what is in it, so under load these go together. Waiting is safe, because
# nothing is acknowledged before it is written; and a quiet service does not wait.
GROUP, READ_EVERY_S, WRITE_EVERY_S = 200, 0.02, 0.2

# Updates in one command. Other commands get in between, so they do not wait long.
_PIECE = 8

_CLOSE_S = 1.0


class Store:
    """The database of one ledger.

    What reads and writes by key raises PyMongoError: its callers translate that.

    Args:
        settings: where MongoDB is.
        failpoints: for tests of faults.
        migrations: how the schema came to be what this code knows.

    Raises:
        SettingsError: the connection string cannot be used.
    """

    def __init__(
        self,
        settings: Mongo,
        failpoints: Failpoints = NO_FAILPOINTS,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._failpoints = failpoints
        self._client = connect(settings)
        self._database = self._client[settings.database]
        self._schema = Schema(self._database, migrations, uuid.uuid4().hex)
        self.requests = self._database["requests"]
        self.products = self._database["products"]
        self.intakes = self._database["intakes"]
        self.sources = self._database["sources"]
        self.api_keys = self._database["api_keys"]

    async def prepare(self) -> None:
        """Bring the schema up to date and create the indexes; harmless when they are there.

        Raises:
            SettingsError: MongoDB refuses us for good, or the database is newer than this code.
            ServiceError: UNAVAILABLE for now.
        """
        try:
            await self._schema.bring_up()
            await create_indexes(self._database)
        except PyMongoError as error:
            if remedy := mongo_errors.lasting(error):
                raise SettingsError(remedy) from None
            raise mongo_errors.service_error(error) from error

    async def check(self) -> None:
        """Look whether MongoDB answers, lets us read, and has a schema that this code knows.

        Raises:
            SettingsError: the database is newer.
            ServiceError: UNAVAILABLE.
        """
        with translated():
            await self._schema.check()

    def close(self) -> None:
        """Close all connections, without waiting long for a MongoDB that does not answer."""
        closing = threading.Thread(target=self._client.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    async def by_key(
        self, collection: Any, keys: Iterable[str], *fields: str
    ) -> dict[str, Document]:
        """Documents by their keys, those that are there.

        The query has nothing but the keys, because that is the fastest; the caller looks at
        whatever else must be true of a document.

        Args:
            collection: which.
            keys: of the documents.
            fields: what of them; all if none is named.
        """
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        cursor = collection.find({"_id": {"$in": wanted}}, dict.fromkeys(fields, 1) or None)
        return {found["_id"]: found async for found in cursor}

    async def oldest(
        self, wanted: Document, fields: Document, *, by: str, whose: str, limit: int
    ) -> list[Document]:
        """Requests in the order of time, so that those of one tenant do not hide those of others.

        Args:
            wanted: which requests.
            fields: what of them.
            by: the field with the time.
            whose: the field that says whose they are.
            limit: how many at most; a tenant that has none among these gets as many too.
        """
        found: list[Document] = []
        seen: set[str] = set()
        while True:
            others = {whose: {"$nin": sorted(seen)}} if seen else {}
            with translated():
                cursor = self.requests.find({**wanted, **others}, {**fields, whose: 1})
                page = [each async for each in cursor.sort(by, ASCENDING).limit(limit)]
            found += page
            seen |= {each[whose] for each in page}
            if len(page) < limit:
                return found

    async def write(
        self, name: str, method: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> Any:
        """Call a method of a collection that writes.

        Args:
            name: of the failpoint around it, without ``ledger.``.
            method: of the collection.
            args: given to it.
            options: given to it.

        Returns:
            What the method returns.
        """
        with self._failpoints.around(f"ledger.{name}"):
            return await method(*args, **options)

    async def update_all(self, name: str, collection: Any, updates: Sequence[UpdateOne]) -> int:
        """Carry out updates in any order, some in a command.

        Args:
            name: of the failpoint around each command, without ``ledger.``.
            collection: which.
            updates: what to change.

        Returns:
            How many of them found their document.
        """
        matched = 0
        for start in range(0, len(updates), _PIECE):
            some = updates[start : start + _PIECE]
            written = await self.write(name, collection.bulk_write, some, ordered=False)
            matched += written.matched_count
        return matched
