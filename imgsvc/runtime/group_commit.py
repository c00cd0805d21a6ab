"""Group commit: what arrives between two writes goes out together in the next one."""

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

    An idle group writes at once; under load the next group gathers while a write is under way,
    and until its turn has come or nobody else is expected. Tasks with priority make groups of
    their own, which wait for nobody. Nobody is told of success before the write is acknowledged.

    Args:
        write: writes a group and returns one answer for each item, in order. If it raises,
            everyone in the group gets the error. Two groups may be written at a time.
        most: items in one group at most.
        every_s: the least time from the beginning of one write to that of the next.
        expecting: whether others may still join.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        most: int,
        every_s: float = 0.0,
        expecting: Callable[[], bool] = lambda: True,
    ) -> None:
        self._lines = {
            False: _Line(write, most, every_s, expecting),
            True: _Line(write, most, 0.0, expecting),
        }

    async def submit(self, item: T) -> R:
        """Write one item; returns when the group that holds it is acknowledged.

        Raises:
            Exception: whatever ``write`` raised for the group.
        """
        # Shielded: a caller that goes away does not take its neighbours' write with it.
        return await asyncio.shield(self._lines[PRIORITY.get()].join(item))


class _Line(Generic[T, R]):
    """Those who wait for the next write, and who writes."""

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
        self._turn = 0.0
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writer: asyncio.Task[None] | None = None

    def join(self, item: T) -> asyncio.Future[R]:
        """Wait in line."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return future

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            # Looked at again and again: nobody says when others stop being expected.
            while (early_s := self._turn - loop.time()) > 0 and self._expecting():  # noqa: ASYNC110
                await asyncio.sleep(min(early_s, _LOOK_EVERY_S))
            self._turn = loop.time() + self._every_s
            group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await self._write([item for item, _ in group])
                told = list(zip(group, answers, strict=True))
            except Exception as error:  # noqa: BLE001 - handed to those who asked
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                        # Who asked may be gone, as when the process leaves: that is no news.
                        future.exception()
            else:
                for (_, future), answer in told:
                    if not future.done():
                        future.set_result(answer)
