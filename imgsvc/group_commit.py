"""Group commit: what arrives while a write is under way goes out together in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Turns many single writes into few grouped ones, without a timer.

    An idle group writes at once; under load the groups grow by themselves, because a write that
    is under way lets the next group gather. Nobody is told of success before the write is
    acknowledged.

    Args:
        write: writes a group and returns one answer for each item, in order. If it raises,
            everyone in the group gets the error.
        most: items in one group at most.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], most: int) -> None:
        self._write = write
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Write one item; returns when the group that holds it is acknowledged.

        Raises:
            Exception: whatever ``write`` raised for the group.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        # Shielded: a caller that goes away does not take its neighbours' write with it.
        return await asyncio.shield(future)

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await self._write([item for item, _ in group])
                told = list(zip(group, answers, strict=True))
            except Exception as error:  # noqa: BLE001 - handed to those who asked
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), answer in told:
                    if not future.done():
                        future.set_result(answer)
