"""What goes on, as it can be seen from outside, a few times a second."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from tests.chaos.replicas import Replica
from tests.chaos.stack import Stack

_EVERY_S = 0.2
_SIZES_EVERY = 5


@dataclass
class Worst:
    """The worst that was seen of a replica, and how long each took to say that it lives."""

    rss_bytes: int = 0
    files: int = 0
    spool_bytes: int = 0
    health_s: list[float] = field(default_factory=list)


class Watch:
    """Knows which images are open, and the worst that was seen of any replica.

    Args:
        stack: what to watch.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            stack.servers.endpoints.mongo_uri,
            serverSelectionTimeoutMS=500,
            connectTimeoutMS=500,
            socketTimeoutMS=2000,
        )
        self._requests = self._mongo[stack.bucket]["requests"]
        self._products = self._mongo[stack.bucket]["products"]
        self.open: set[str] = set()
        self.at = 0.0  # when that was so
        self.worst = Worst()

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            rounds = 0
            while True:
                with contextlib.suppress(PyMongoError):
                    await self._look_at_work()
                if rounds % _SIZES_EVERY == 0:
                    for replica in self._stack.replicas:
                        if replica.at_work:
                            await self._look_at(replica)
                rounds += 1
                await asyncio.sleep(_EVERY_S)
        finally:
            await self._mongo.close()

    async def _look_at_work(self) -> None:
        at = time.monotonic()
        # An upload that was refused half-way may leave products behind, which are nobody's.
        accepted = self._requests.find({"status": {"$in": ["PENDING", "PROCESSING"]}}, {"_id": 1})
        ids = [found["_id"] async for found in accepted]
        cursor = self._products.find(
            {"request": {"$in": ids}, "open": {"$gt": 0}}, {"images.status": 1}
        )
        self.open = {
            f"{found['_id']}-{index}"
            async for found in cursor
            for index, image in enumerate(found["images"])
            if image["status"] == "PENDING"
        }
        self.at = at

    async def _look_at(self, replica: Replica) -> None:
        worst = self.worst
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, StopIteration):
            process = psutil.Process(replica.process.pid)
            worst.rss_bytes = max(worst.rss_bytes, process.memory_info().rss)
            folder = self._stack.spool / replica.id
            used = sum(file.stat().st_size for file in folder.iterdir())
            worst.spool_bytes = max(worst.spool_bytes, used)
        started, pauses = time.monotonic(), replica.pauses
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            with contextlib.suppress(TimeoutError):  # which is as long as it was waited for
                await replica.call("GET", "/healthz")
            if replica.at_work and replica.pauses == pauses:
                worst.health_s.append(time.monotonic() - started)
            worst.files = max(worst.files, await replica.open_files())

    async def finished(self, images: set[str], within_s: float) -> float | None:
        """Seconds until none of these images is open; None if that takes too long."""
        started = time.monotonic()
        while time.monotonic() < started + within_s:
            if self.at > started and not images & self.open:
                return self.at - started
            await asyncio.sleep(0.05)
        return None
