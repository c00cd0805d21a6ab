"""Group commit: items that arrive during one write go out together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from imgsvc.runtime.priority import PRIORITY

T = TypeVar("T")
R = TypeVar("R")
_LOOK_EVERY_S = 0.02


class GroupCommit(Generic[T, R]):
    """Turns many single writes, or reads, into few grouped ones.

    When idle it writes at once. Under load the next group gathers while a write is under way, and
    then until the interval is over or no others are expected. Tasks with priority make groups of
    their own, which wait for no interval. ``submit`` returns only once the write is acknowledged.

    Args:
        write: writes a group, and returns one answer for each item, in order. If it raises, all
            callers of the group get the error. It may be called for two groups at a time.
        most: the most items in one group.
        every_s: the least time between the beginnings of two writes.
        expecting: whether more items may still come.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        most: int,
        every_s: float = 0.0,
        expecting: Callable[[], bool] = lambda: True,
    ) -> None:
        self._queues = {
            False: _Queue(write, most, every_s, expecting),
            True: _Queue(write, most, 0.0, expecting),
        }

    async def submit(self, item: T) -> R:
        """Write one item; returns when the group that holds it is acknowledged.

        Raises:
            Exception: whatever ``write`` raised for the group.
        """
        # Shielded, so that a caller that is cancelled does not cancel the write of all others.
        return await asyncio.shield(self._queues[PRIORITY.get()].join(item))


class _Queue(Generic[T, R]):
    """The items that wait for the next write, and the task that writes them."""

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        most: int,
        every_s: float,
        expecting: Callable[[], bool],
    ) -> None:
        self._write = write
        self._most = most
        self._every_s = every_s
        self._expecting = expecting
        self._not_before = 0.0
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writer: asyncio.Task[None] | None = None

    def join(self, item: T) -> asyncio.Future[R]:
        """Add an item; the future has its answer."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return future

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            # By polling: nothing tells when no others are expected any more.
            while (early_s := self._not_before - loop.time()) > 0 and self._expecting():  # noqa: ASYNC110
                await asyncio.sleep(min(early_s, _LOOK_EVERY_S))
            self._not_before = loop.time() + self._every_s
            group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await self._write([item for item, _ in group])
                answered = list(zip(group, answers, strict=True))
            except Exception as error:  # noqa: BLE001 - passed on to the callers
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                        # The caller may be gone, as at shutdown: asyncio need not log that.
                        future.exception()
            else:
                for (_, future), answer in answered:
                    if not future.done():
                        future.set_result(answer)
