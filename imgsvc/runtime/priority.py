"""Priority: work that a client is waiting for goes first.

It overtakes the queues of other work, and does not wait for a group of writes to fill. The mark lies in
the context of a task, so that what is called deep below need not be passed an argument.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar

PRIORITY: ContextVar[bool] = ContextVar("priority", default=False)
"""Whether this task has priority."""

_IN_A_ROW = 3  # with priority; then one of the others has a turn


class Turnstile:
    """Lets so many tasks in at a time: those with priority first, the others as they came.

    However many have priority, every fourth turn is for one of the others.

    Args:
        is_open: whether one more may come in, beyond the given number inside.
    """

    def __init__(self, is_open: Callable[[int], bool]) -> None:
        self._is_open = is_open
        self._lines: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}
        self._in_a_row = 0
        self.inside = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be inside, after waiting for it."""
        line = self._lines[PRIORITY.get()]
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(called)
        self.look()
        try:
            await called
            yield
        finally:
            if called.done() and not called.cancelled():
                self.inside -= 1
            else:
                with contextlib.suppress(ValueError):  # it may have been skipped by now
                    line.remove(called)
            self.look()

    def look(self) -> None:
        """Let in whoever may come in; to be called when there may be more room."""
        while any(self._lines.values()) and self._is_open(self.inside):
            prior = bool(self._lines[True]) and (
                not self._lines[False] or self._in_a_row < _IN_A_ROW
            )
            called = self._lines[prior].popleft()
            if not called.cancelled():
                self._in_a_row = self._in_a_row + 1 if prior else 0
                self.inside += 1
                called.set_result(None)
