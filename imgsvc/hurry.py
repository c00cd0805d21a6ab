"""Work that somebody waits for goes first: past lines of others, and without gathering company.

What is done for a task in a hurry knows so from its context, however deep it is called.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar

HURRY: ContextVar[bool] = ContextVar("hurry", default=False)
"""Whether this task is in a hurry."""


class Turnstile:
    """Lets so many tasks in at a time: those in a hurry first, the others as they came.

    Args:
        is_open: whether one more may come in, beyond the given number inside.
    """

    def __init__(self, is_open: Callable[[int], bool]) -> None:
        self._is_open = is_open
        self._lines: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}
        self.inside = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be inside, after waiting for it."""
        line = self._lines[HURRY.get()]
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
        for line in self._lines.values():
            while line and self._is_open(self.inside):
                called = line.popleft()
                if not called.cancelled():
                    self.inside += 1
                    called.set_result(None)
