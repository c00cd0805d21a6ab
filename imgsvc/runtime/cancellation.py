"""Tasks that are cancelled until they have ended.

A cancellation can get lost: in Python 3.11 ``asyncio.wait_for`` forgets one that comes together with
its answer (cpython gh-86296), and redis-py sends every command through it. A task that goes on for
ever must not keep its process from leaving, so it is told until it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

_AGAIN_S = 0.5


async def cancel_and_wait(*tasks: asyncio.Future[Any], within_s: float = math.inf) -> None:
    """Cancel tasks until they have ended, whatever comes of them.

    Whoever cancels the caller meanwhile wants the same: the tasks are told once more.

    Args:
        tasks: which.
        within_s: after so long they are left to themselves.
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
    """Wait until tasks have ended; if cancelled, end them."""
    try:
        await asyncio.wait(tasks)
    finally:
        await cancel_and_wait(*tasks)
