"""Counts the bytes fetched for each tenant, in Redis, for the limit of a day.

When the limit is reached, new uploads have to wait, but images that were accepted are still
fetched. So the count need not be exact to the byte: it is gathered here and written at most once a
second for each tenant. A replica that is killed loses what it had gathered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

from imgsvc.domain.errors import ServiceError
from imgsvc.mailboxes.limits import Limits
from imgsvc.runtime import logs
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import RateLimit

LIMIT = "bytes"  # what the limit is called in headers and in Redis
DAY_S = 86_400
_GATHER_S = 1.0
_log = logs.get("traffic")

Write = Callable[[bytes], Awaitable[None]]


class Traffic:
    """Counts fetched bytes.

    Args:
        settings: the limit; nothing is counted without one.
        limits: where the count is kept.
        metrics: where failures to count are counted.
    """

    def __init__(self, settings: RateLimit, limits: Limits, metrics: Metrics) -> None:
        self._limit = settings.bytes_per_day if settings.enabled else 0
        self._limits = limits
        self._metrics = metrics
        self._gathered: Counter[str] = Counter()
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def counted(self, quota_tenant: str, write: Write) -> Write:
        """``write``, with every byte that passes counted for ``quota_tenant``."""
        if not self._limit:
            return write

        async def count(piece: bytes) -> None:
            self._gathered[quota_tenant] += len(piece)
            if self._writer is None or self._writer.done():
                self._writer = asyncio.create_task(self._write_soon())
            await write(piece)

        return count

    async def _write_soon(self) -> None:
        while self._gathered:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _GATHER_S)
            gathered, self._gathered = self._gathered, Counter()
            for quota_tenant, size in gathered.items():
                try:
                    await self._limits.take(
                        f"{LIMIT}:{quota_tenant}", self._limit, DAY_S, size, owed=True
                    )
                except ServiceError as error:
                    self._metrics.ratelimit_open.inc()
                    _log.warning("traffic.not_counted", bytes=size, reason=error.detail)

    async def close(self) -> None:
        """Write what was gathered."""
        self._closing.set()
        if self._writer:
            await self._writer
