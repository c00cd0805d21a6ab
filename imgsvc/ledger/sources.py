"""Results that may be used again: what the source was like, and what came of it.

While its origin says that a source is unchanged, or sends the same bytes, a tenant's next request
with the same recipe gets a copy of the result. An entry is only a cache: without it, or when its
object is gone, the image is worked on as if it were new.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import orjson
from pymongo import UpdateOne

from imgsvc.domain.messages import Source
from imgsvc.domain.model import Recipe
from imgsvc.ledger.clocks import current_time
from imgsvc.ledger.documents import ERASED, Document, is_erased
from imgsvc.ledger.ends import Completed
from imgsvc.ledger.mongo_errors import translated
from imgsvc.ledger.store import GROUP, READ_EVERY_S, WRITE_EVERY_S, Store
from imgsvc.runtime.group_commit import GroupCommit


@dataclass(frozen=True, slots=True)
class Remembered:
    """A source as it was, and the result that is stored."""

    source: Source
    end: Completed


def source_key(tenant: str, url: str, recipe: Recipe) -> str:
    """What makes two images the same work: whose they are, where from, and how to encode them."""
    parts = [tenant, url, recipe.model_dump(exclude_none=True)]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Sources:
    """Results by their sources.

    Args:
        store: the database.
        expecting: whether more images will end soon; then writing waits a little for them.
    """

    def __init__(self, store: Store, expecting: Callable[[], bool]) -> None:
        self._store = store
        self._requests = store.requests
        self._sources = store.sources
        self._recalls = GroupCommit[str, Document | None](self._look_up, GROUP, READ_EVERY_S)
        self._memories = GroupCommit[Document, None](
            self._remember, GROUP, WRITE_EVERY_S, expecting
        )

    async def recall(self, key: str, ttl_s: float) -> Remembered | None:
        """What is remembered of a source.

        Args:
            key: from ``source_key``.
            ttl_s: how long memories are good, in seconds.
        """
        found = await self._recalls.submit(key)
        if not found or found["at"] < current_time() - timedelta(seconds=ttl_s):
            return None
        return Remembered(Source(**found["source"]), Completed(**found["end"]))

    async def _look_up(self, keys: Sequence[str]) -> list[Document | None]:
        with translated():
            found = await self._store.by_key(self._sources, keys)
        # Those of older versions have another digest; nothing is known of them.
        known = {key: entry for key, entry in found.items() if "blake3" in entry["source"]}
        return [known.get(key) for key in keys]

    async def remember(self, source: Source, end: Completed) -> None:
        """Remember a source and the result that was stored for it, instead of what was before."""
        memory = {"_id": source.key, "source": source.model_dump(), "end": asdict(end)}
        await self._memories.submit(memory)

    async def _remember(self, memories: Sequence[Document]) -> list[None]:
        now = current_time()
        with translated():
            await self._store.update_all(
                "remember_sources",
                self._sources,
                [
                    UpdateOne(
                        {"_id": memory["_id"]},
                        {"$set": {"source": memory["source"], "end": memory["end"], "at": now}},
                        upsert=True,
                    )
                    for memory in memories
                ],
            )
            await self._forget_erased(memories)
        return [None] * len(memories)

    async def _forget_erased(self, memories: Sequence[Document]) -> None:
        """Forget again what was noted after the Eraser had looked for it."""
        requests = {_request_of(memory) for memory in memories}
        found = await self._store.by_key(self._requests, requests, *ERASED)
        erased = {key for key, request in found.items() if is_erased(request)}
        if late := [memory for memory in memories if _request_of(memory) in erased]:
            await self._store.write(
                "forget_source",
                self._sources.delete_many,
                {
                    "_id": {"$in": [memory["_id"] for memory in late]},
                    "end.output": {"$in": [memory["end"]["output"] for memory in late]},
                },
            )

    async def erase(self, keys: Sequence[str], request_id: str) -> None:
        """Forget what came of these sources in one request.

        Raises:
            PyMongoError: it could not be done.
        """
        of_this = {"$regex": f"^{re.escape(request_id)}/"}
        await self._store.write(
            "erase_sources",
            self._sources.delete_many,
            {"_id": {"$in": keys}, "end.output": of_this},
        )

    async def forget(self, key: str) -> None:
        """Forget a source whose result is gone."""
        with translated():
            await self._store.write("forget_source", self._sources.delete_one, {"_id": key})

    async def forget_older(self, ttl_s: float) -> None:
        """Forget what is older than ``ttl_s`` seconds."""
        with translated():
            await self._store.write(
                "forget_sources",
                self._sources.delete_many,
                {"at": {"$lt": current_time() - timedelta(seconds=ttl_s)}},
            )


def _request_of(memory: Document) -> str:
    """The request whose object the result is."""
    output: str = memory["end"]["output"]
    return output.partition("/")[0]
