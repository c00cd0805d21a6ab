"""A semaphore with weights and priority, for work of one kind that competes for one resource."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Callable

_MOST_IN_A_ROW = 3  # with priority; then a task without priority is next


class PrioritySemaphore:
    """Admits tasks while the sum of their weights stays within the capacity.

    Tasks with priority are admitted first, the others in order of arrival. However many have
    priority, every fourth admission is for a task without. The task that is next is not overtaken:
    if it is heavy and does not fit yet, lighter ones wait behind it, so it does get its turn.

    The order here depends on what the work is, and not on whose it is: a ``FairSemaphore`` shares a
    resource between tenants instead, and picks the tenant that holds the least. No resource needs
    both, so each stays simple.

    Args:
        capacity: the sum of weights at a time. A task that weighs more is admitted alone.
        is_open: whether another task may be admitted, as far as this depends on other things than
            capacity. Call ``admit`` when that changes.
    """

    def __init__(self, capacity: int, is_open: Callable[[], bool] = lambda: True) -> None:
        self._capacity = capacity
        self._free: float = capacity
        self._is_open = is_open
        # By priority: the tasks that wait, as their weight and what tells them to go on.
        self._waiting: dict[bool, deque[tuple[int, asyncio.Future[None]]]] = {
            True: deque(),
            False: deque(),
        }
        self._in_a_row = 0

    @contextlib.asynccontextmanager
    async def hold(self, weight: int = 1, *, priority: bool = False) -> AsyncIterator[None]:
        """Wait for admission, and hold ``weight`` of the capacity inside the block."""
        weight = min(weight, self._capacity)
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting[priority]
        queue.append((weight, admitted))
        self.admit()
        try:
            await admitted
            yield
        finally:
            if admitted.done() and not admitted.cancelled():
                self._free += weight
            else:
                with contextlib.suppress(ValueError):  # `admit` may have dropped it already
                    queue.remove((weight, admitted))
            self.admit()

    def admit(self) -> None:
        """Admit every task that may go on now."""
        while any(self._waiting.values()) and self._is_open():
            priority = self._is_for_priority()
            weight, admitted = self._waiting[priority][0]
            if weight > self._free:
                break
            self._waiting[priority].popleft()
            if not admitted.cancelled():
                self._in_a_row = self._in_a_row + 1 if priority else 0
                self._free -= weight
                admitted.set_result(None)

    def _is_for_priority(self) -> bool:
        if not self._waiting[False]:
            return True
        return bool(self._waiting[True]) and self._in_a_row < _MOST_IN_A_ROW

    def lift(self) -> None:
        """Admit all tasks from now on, as when they are only to notice that they must stop."""
        self._free = math.inf
        self._is_open = lambda: True
        self.admit()
