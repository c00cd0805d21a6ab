"""A semaphore that is fair to tenants: a share for each, and who has fewest places is next."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator


class FairSemaphore:
    """Lets so many in at once, of one tenant fewer.

    Of those who wait the tenant with the fewest inside is next; among equals they go in turn.

    Args:
        places: for all together.
        share: for one tenant at most.
    """

    def __init__(self, places: int, share: int) -> None:
        self._free = places
        self._share = share
        self._inside: Counter[str] = Counter()
        # Of each tenant those who wait, as they came; who was served last is the last of them.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def place(self, tenant: str) -> AsyncIterator[None]:
        """Have a place of this tenant's, after waiting for it."""
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(called)
        self._call()
        try:
            await called
            yield
        finally:
            if called.done() and not called.cancelled():
                self._free += 1
                self._inside[tenant] -= 1
                if not self._inside[tenant]:
                    del self._inside[tenant]
            else:
                self._forget(tenant, called)
            self._call()

    def _call(self) -> None:
        """Let in who may come in now."""
        while self._free and (tenant := self._next()) is not None:
            line = self._waiting.pop(tenant)
            called = line.popleft()
            if line:
                self._waiting[tenant] = line
            if not called.cancelled():
                self._free -= 1
                self._inside[tenant] += 1
                called.set_result(None)

    def _next(self) -> str | None:
        """Whose turn it is, if anybody's."""
        inside = self._inside
        below = (tenant for tenant in self._waiting if inside[tenant] < self._share)
        return min(below, key=inside.__getitem__, default=None)

    def _forget(self, tenant: str, called: asyncio.Future[None]) -> None:
        """Have somebody wait no more; skipped already if the line came to them too late."""
        line = self._waiting.get(tenant, deque())
        with contextlib.suppress(ValueError):
            line.remove(called)
        if not line:
            self._waiting.pop(tenant, None)
