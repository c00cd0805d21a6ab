"""Graceful shutdown: one deadline for all of it, from the signal to the end of the process.

An orchestrator kills the process after some time, whatever is left to do. So work, calls under way,
handing back messages and closing connections share one deadline. Most of the time is for the work; the
rest is for what has to be done after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from imgsvc.runtime import logs
from imgsvc.runtime.cancellation import cancel_and_wait

_AFTER_WORK_S = 5.0  # but at most a quarter of all the time
_log = logs.get("leaving")  # its old name, for those who search logs by it


class ShutdownDeadline:
    """The time that is left until the process must have ended.

    Args:
        within_s: how long the shutdown may take in all.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._until: float | None = None

    def begin(self) -> None:
        """Start the clock; a second call changes nothing."""
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._within_s

    @property
    def left_s(self) -> float:
        """Seconds until everything must be done."""
        if self._until is None:
            return self._within_s
        return max(0.0, self._until - asyncio.get_running_loop().time())

    @property
    def work_s(self) -> float:
        """Seconds for which work and calls under way may go on."""
        return max(0.0, self.left_s - min(_AFTER_WORK_S, self._within_s / 4))

    async def work(self, step: Callable[[], Awaitable[object]]) -> None:
        """Do a step that may take as long as the work may; then it is cancelled."""
        self.begin()
        await self._bounded(step, self.work_s)

    async def close(self, step: Callable[[], Awaitable[object]]) -> None:
        """Do a step of closing down, while there is time."""
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
