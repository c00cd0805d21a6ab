"""Cancel tasks and wait, again and again until they have ended.

A cancellation can get lost: in Python 3.11 ``asyncio.wait_for`` forgets one that comes together with
its answer (cpython gh-86296), and redis-py sends every command through it. Such a task would go on
for ever and keep the process from ending, so it is cancelled until it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

_AGAIN_S = 0.5


async def cancel_and_wait(*tasks: asyncio.Future[Any], within_s: float = math.inf) -> None:
    """Cancel tasks until they have ended, whatever they return or raise.

    If the caller is cancelled meanwhile, this only cancels the tasks once more.

    Args:
        tasks: the tasks to end.
        within_s: seconds after which to stop waiting for them.
    """
    clock = asyncio.get_running_loop()
    until = clock.time() + within_s
    while open_ := [task for task in tasks if not task.done()]:
        for task in open_:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(open_, timeout=min(_AGAIN_S, max(0.0, until - clock.time())))
        if clock.time() >= until:
            break


async def wait_or_cancel(*tasks: asyncio.Task[Any]) -> None:
    """Wait until tasks have ended. If this is cancelled, so are they."""
    try:
        await asyncio.wait(tasks)
    finally:
        await cancel_and_wait(*tasks)
