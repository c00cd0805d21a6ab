"""A semaphore that is fair to tenants: each has a share, and the one that holds the least is next."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator


class FairSemaphore:
    """Admits a number of tasks at a time, and fewer of one tenant.

    Of the tenants that wait, the one with the fewest tasks inside is next; equals take turns.

    Args:
        capacity: tasks at a time.
        share: tasks of one tenant at a time.
    """

    def __init__(self, capacity: int, share: int) -> None:
        self._free = capacity
        self._share = share
        self._inside: Counter[str] = Counter()
        # The tasks of each tenant in order of arrival. The tenant that was served last is at the end.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def hold(self, tenant: str) -> AsyncIterator[None]:
        """Wait for admission, and count as one of this tenant's tasks inside the block."""
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(admitted)
        self._admit()
        try:
            await admitted
            yield
        finally:
            if admitted.done() and not admitted.cancelled():
                self._free += 1
                self._inside[tenant] -= 1
                if not self._inside[tenant]:
                    del self._inside[tenant]
            else:
                self._forget(tenant, admitted)
            self._admit()

    def _admit(self) -> None:
        while self._free and (tenant := self._next_tenant()) is not None:
            queue = self._waiting.pop(tenant)
            admitted = queue.popleft()
            if queue:
                self._waiting[tenant] = queue
            if not admitted.cancelled():
                self._free -= 1
                self._inside[tenant] += 1
                admitted.set_result(None)

    def _next_tenant(self) -> str | None:
        inside = self._inside
        below = (tenant for tenant in self._waiting if inside[tenant] < self._share)
        return min(below, key=inside.__getitem__, default=None)

    def _forget(self, tenant: str, admitted: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant, deque())
        with contextlib.suppress(ValueError):  # `_admit` may have dropped it already
            queue.remove(admitted)
        if not queue:
            self._waiting.pop(tenant, None)
