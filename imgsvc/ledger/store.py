"""The connection to MongoDB, and what all parts of the ledger do alike."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, DESCENDING, UpdateOne
from pymongo.errors import PyMongoError

from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.failpoints import NO_FAILPOINTS, Failpoints
from imgsvc.ledger.records import Document
from imgsvc.model import Step, WebhookStatus
from imgsvc.settings import Mongo

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
    """

    def __init__(self, settings: Mongo, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        self._settings = settings
        self._failpoints = failpoints
        self.expecting: Callable[[], bool] = lambda: True
        """Whether more images will end soon; then ends that have come wait for them a little."""
        self._client: Any = AsyncIOMotorClient(
            settings.uri.get_secret_value(),
            serverSelectionTimeoutMS=settings.timeout_ms,
            connectTimeoutMS=settings.timeout_ms,
            socketTimeoutMS=settings.timeout_ms * 4,
            # A 202 promises that the request survives: ask for that.
            w="majority",
            journal=True,
            readConcernLevel="local",
            tz_aware=True,
            appname="imgsvc",
        )
        database = self._client[settings.database]
        self._requests = database["requests"]
        self._products = database["products"]
        self._intakes = database["intakes"]
        self._sources = database["sources"]
        self._api_keys = database["api_keys"]

    async def prepare(self) -> None:
        """Create the indexes; harmless when they are there."""
        with translated():
            await self._products.create_index([("request", ASCENDING), ("n", ASCENDING)])
            await self._products.create_index(
                [("request", ASCENDING), ("open", ASCENDING), ("n", ASCENDING)]
            )
            await self._intakes.create_index([("checkAt", ASCENDING)])
            await self._intakes.create_index([("request", ASCENDING)])
            await self._sources.create_index([("at", ASCENDING)])
            await self._requests.create_index([("status", ASCENDING), ("createdAt", ASCENDING)])
            for key in (
                "reopen.n",
                "cancelling",
                "erasing",
                "expiresAt",
                "sweepFrom",
                "refused.at",
            ):
                await self._requests.create_index([(key, ASCENDING)], sparse=True)
            newest = [("createdAt", DESCENDING), ("_id", DESCENDING)]
            await self._requests.create_index([("tenant", ASCENDING), *newest])
            await self._requests.create_index(
                [("tenant", ASCENDING), ("status", ASCENDING), *newest]
            )
            await self._requests.create_index(
                [("webhook.nextAt", ASCENDING)],
                partialFilterExpression={"webhook.status": WebhookStatus.PENDING},
            )
            await self._requests.create_index(
                [("webhook.setAt", ASCENDING)],
                partialFilterExpression={"webhook.status": WebhookStatus.PENDING},
            )
            await self._requests.create_index(
                [("updatedAt", ASCENDING)],
                partialFilterExpression={"webhook.status": WebhookStatus.FAILED},
            )

    def _expects(self) -> bool:
        return self.expecting()

    async def check(self) -> None:
        """Raise ServiceError unless MongoDB answers."""
        with translated():
            await self._client.admin.command("ping")

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
    """MongoDB being away is one error to the rest of the service."""
    try:
        yield
    except PyMongoError as error:
        raise ServiceError(ErrorCode.UNAVAILABLE, retry_after_s=2) from error
