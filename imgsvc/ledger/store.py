"""The connection to MongoDB, and what all parts of the ledger do alike."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

from pymongo import ASCENDING, DESCENDING, UpdateOne
from pymongo.errors import OperationFailure, PyMongoError

from imgsvc.domain.model import Step, WebhookStatus
from imgsvc.ledger import mongo_errors
from imgsvc.ledger.client import connect
from imgsvc.ledger.records import Document
from imgsvc.ledger.schema import MIGRATIONS, Migration, Schema
from imgsvc.runtime.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.runtime.settings import Mongo, SettingsError

# A command costs MongoDB and us more than what is in it: under load these go together. What is
# written this much later was not acknowledged before, and a quiet service does not wait.
GROUP, READ_EVERY_S, WRITE_EVERY_S = 200, 0.02, 0.2

# So many updates in one command: a question that somebody waits for gets in after them.
_PIECE = 8

CLOCKS_AGREE = timedelta(seconds=5)  # those of replicas; more than that, one of them is wrong
_CLOSE_S = 1.0
_REMEMBERED = 10_000  # requests of which something is kept in mind

T = TypeVar("T")


class Store:
    """The collections.

    Args:
        settings: where MongoDB is.
        failpoints: for tests of faults.

    Raises:
        SettingsError: the connection string cannot be used.
    """

    migrations: ClassVar[Sequence[Migration]] = MIGRATIONS
    """How the schema came to be what this code knows."""

    def __init__(self, settings: Mongo, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        self._settings = settings
        self._failpoints = failpoints
        self.expecting: Callable[[], bool] = lambda: True
        """Whether more images will end soon; then ends that have come wait for them a little."""
        self._client = connect(settings)
        database = self._client[settings.database]
        self._schema = Schema(database, self.migrations, uuid.uuid4().hex)
        self._requests = database["requests"]
        self._products = database["products"]
        self._intakes = database["intakes"]
        self._sources = database["sources"]
        self._api_keys = database["api_keys"]

    async def prepare(self) -> None:
        """Bring the schema up to date and create the indexes; harmless when they are there.

        Raises:
            SettingsError: MongoDB refuses us for good, or the database is newer than this code.
            ServiceError: UNAVAILABLE for now.
        """
        try:
            await self._schema.bring_up()
            await self._create_indexes()
        except PyMongoError as error:
            if remedy := mongo_errors.lasting(error):
                raise SettingsError(remedy) from None
            raise mongo_errors.service_error(error) from error

    async def _create_indexes(self) -> None:
        index = self._create_index
        await index(self._products, ("request", ASCENDING), ("n", ASCENDING))
        await index(self._products, ("request", ASCENDING), ("open", ASCENDING), ("n", ASCENDING))
        await index(self._intakes, ("checkAt", ASCENDING))
        await index(self._intakes, ("request", ASCENDING))
        await index(self._sources, ("at", ASCENDING))
        await index(self._requests, ("status", ASCENDING), ("createdAt", ASCENDING))
        marks = ("reopen.n", "cancelling", "erasing", "expiresAt", "sweepFrom", "refused.at")
        for key in marks:
            await index(self._requests, (key, ASCENDING), sparse=True)
        newest = (("createdAt", DESCENDING), ("_id", DESCENDING))
        await index(self._requests, ("tenant", ASCENDING), *newest)
        await index(self._requests, ("tenant", ASCENDING), ("status", ASCENDING), *newest)
        for key, status in (
            ("webhook.nextAt", WebhookStatus.PENDING),
            ("webhook.setAt", WebhookStatus.PENDING),
            ("updatedAt", WebhookStatus.FAILED),
        ):
            only = {"webhook.status": status}
            await index(self._requests, (key, ASCENDING), partialFilterExpression=only)

    async def _create_index(self, collection: Any, *keys: tuple[str, int], **options: Any) -> None:
        try:
            await collection.create_index([*keys], **options)
        except OperationFailure as error:
            if conflict := mongo_errors.index_conflict(error, collection.full_name):
                raise SettingsError(conflict) from None
            raise

    def _expects(self) -> bool:
        return self.expecting()

    async def check(self) -> None:
        """Look whether MongoDB answers, lets us read, and has a schema that this code knows.

        Raises:
            SettingsError: the database is newer.
            ServiceError: UNAVAILABLE.
        """
        with translated():
            await self._schema.check()

    def close(self) -> None:
        """Close all connections; MongoDB is told, but not waited for if it does not listen."""
        closing = threading.Thread(target=self._client.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    async def _by_key(
        self, collection: Any, keys: Iterable[str], *fields: str
    ) -> dict[str, Document]:
        """Documents by their keys, those that are there.

        The key is all that is asked for, as nothing is found faster: whatever else must be true of
        a document is looked at here.

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

    async def _oldest(
        self, wanted: Document, fields: Document, *, by: str, whose: str, limit: int
    ) -> list[Document]:
        """Requests in the order of time, so that nobody's many hide those of others.

        Args:
            wanted: which requests.
            fields: what of them.
            by: the field with the time.
            whose: the field that says whose they are.
            limit: how many at most; but who has none among these gets as many too.
        """
        found: list[Document] = []
        seen: set[str] = set()
        while True:
            others = {whose: {"$nin": sorted(seen)}} if seen else {}
            with translated():
                cursor = self._requests.find({**wanted, **others}, {**fields, whose: 1})
                page = [each async for each in cursor.sort(by, ASCENDING).limit(limit)]
            found += page
            seen |= {each[whose] for each in page}
            if len(page) < limit:
                return found

    async def _write(
        self, name: str, method: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> Any:
        with self._failpoints.around(f"ledger.{name}"):
            return await method(*args, **options)

    async def _update_all(self, name: str, collection: Any, updates: Sequence[UpdateOne]) -> int:
        """Carry out updates in any order; how many found what they are for."""
        matched = 0
        for start in range(0, len(updates), _PIECE):
            some = updates[start : start + _PIECE]
            written = await self._write(name, collection.bulk_write, some, ordered=False)
            matched += written.matched_count
        return matched


def before(step: Step[Any], status: str = "status") -> Document:
    """The condition that a step may be taken."""
    return {status: {"$in": sorted(step.sources)}}


def the_time() -> datetime:
    """The time, as it will be read again."""
    # MongoDB keeps milliseconds; more would make what we write differ from what we read.
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def scheduled(now: datetime, wait_s: float) -> Document:
    """The change that has an announcement wait, and tells by which clock."""
    return {"webhook.nextAt": now + timedelta(seconds=wait_s), "webhook.setAt": now}


def product_id(request_id: str, product: int) -> str:
    """The key of a product's document."""
    return f"{request_id}/{product}"


def remember(memory: dict[str, T], request_id: str, what: T) -> None:
    """Keep in mind what is known of a request; of so many, the oldest is forgotten."""
    memory.pop(request_id, None)
    memory[request_id] = what
    if len(memory) > _REMEMBERED:
        memory.pop(next(iter(memory)))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """MongoDB being away is one error to the rest of the service, and so is a refusal."""
    try:
        yield
    except PyMongoError as error:
        told = mongo_errors.service_error(error)
        # What MongoDB refuses it repeats word by word, secrets and all.
        raise told from None if told.remedy else error
