"""What goes on, as it can be seen from outside, a few times a second."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import aiohttp
import psutil
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from tests.chaos.replicas import Replica
from tests.chaos.stack import Stack

_EVERY_S = 0.2
_SIZES_EVERY = 5


class Watch:
    """Knows which images are open, and the worst that was seen of each replica.

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
        self.rss_bytes = self.files = self.spool_bytes = 0
        self.health_s: list[float] = []

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
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, StopIteration):
            process = psutil.Process(replica.process.pid)
            self.rss_bytes = max(self.rss_bytes, process.memory_info().rss)
            self.files = max(self.files, process.num_fds())
            folder = self._stack.spool / replica.id
            used = sum(file.stat().st_size for file in folder.iterdir())
            self.spool_bytes = max(self.spool_bytes, used)
        started = time.monotonic()
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            await replica.call("GET", "/healthz")
            if replica.at_work:
                self.health_s.append(time.monotonic() - started)

    async def finished(self, images: set[str], within_s: float) -> float | None:
        """Seconds until none of these images is open; None if that takes too long."""
        started = time.monotonic()
        while time.monotonic() < started + within_s:
            if self.at > started and not images & self.open:
                return self.at - started
            await asyncio.sleep(0.05)
        return None
