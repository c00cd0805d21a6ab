"""A budget of bytes that tasks share."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Budget:
    """Bytes that may be in use at once, given out in the order of asking.

    Who asks for much is not overtaken by those who ask for little, so it does get its turn.

    Args:
        total: all there is; who asks for more gets all of it.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def reserve(self, amount: int) -> AsyncIterator[None]:
        """Hold ``amount`` bytes, waiting until it is this one's turn and so many are free."""
        amount = min(amount, self.total)  # one that fills all of it runs alone
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._give()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += amount
            else:
                with contextlib.suppress(ValueError):  # it may have been skipped by now
                    self._waiting.remove((amount, turn))
            self._give()

    def _give(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            amount, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._free -= amount
                turn.set_result(None)
