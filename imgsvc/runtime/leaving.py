"""Leaving: there is one deadline, from the signal to the end of the process.

Orchestrators kill after a time of their own, whatever is left to do. So work, calls under way, the
handing back of messages and the closing of connections share one time; most of it is for the work, the
rest for what has to be done after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from imgsvc.runtime import logs
from imgsvc.runtime.cancellation import cancel_and_wait

_AFTER_WORK_S = 5.0  # at most, and a quarter of all at most
_log = logs.get("leaving")


class Leaving:
    """The time that is left.

    Args:
        within_s: how long leaving may take in all.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._until: float | None = None

    def begin(self) -> None:
        """Leave from now on; said again it changes nothing."""
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._within_s

    @property
    def left_s(self) -> float:
        """Seconds until all must be done."""
        if self._until is None:
            return self._within_s
        return max(0.0, self._until - asyncio.get_running_loop().time())

    @property
    def work_s(self) -> float:
        """Seconds for which work and calls that are under way may go on."""
        return max(0.0, self.left_s - min(_AFTER_WORK_S, self._within_s / 4))

    async def work(self, step: Callable[[], Awaitable[object]]) -> None:
        """Do what may take as long as work may; then it is ended."""
        self.begin()
        await self._bounded(step, self.work_s)

    async def close(self, step: Callable[[], Awaitable[object]]) -> None:
        """Do something on the way out, while there is time."""
        self.begin()
        await self._bounded(step, self.left_s)

    async def _bounded(self, step: Callable[[], Awaitable[object]], seconds: float) -> None:
        task = asyncio.ensure_future(step())
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            _log.warning("shutdown.cut_short", step=getattr(step, "__qualname__", ""))
            await cancel_and_wait(task, within_s=0.1)
        if task.done() and not task.cancelled() and (error := task.exception()):
            _log.error("shutdown.failed", exc_info=error)
