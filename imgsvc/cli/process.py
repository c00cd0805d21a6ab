"""The life of a command that runs until it is stopped: signals, deadlines, and the way out."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import uvloop


class CommandError(Exception):
    """The command cannot go on; the text says why."""


def run(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], leaves_in_s: float | None = None
) -> None:
    """Run ``work`` on uvloop; SIGTERM and SIGINT set the event that it is given.

    Args:
        work: what to run.
        leaves_in_s: after so long it is cut off, whatever it, the loop or its threads wait for.
    """

    async def main() -> None:
        stop = asyncio.Event()

        def leave() -> None:
            if leaves_in_s is not None and not stop.is_set():
                overdue = threading.Timer(leaves_in_s, _cut_off)
                overdue.daemon = True
                overdue.start()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, leave)
        await work(stop)

    uvloop.run(main())


def end(code: int) -> NoReturn:
    """End the process, whatever its threads wait for.

    The interpreter would wait for them, and they for a MongoDB or a bucket that hangs, longer than
    an orchestrator does. Other replicas do their work by now.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - os._exit leaves that out
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _cut_off() -> None:
    """End the process, which should have ended by itself: an orchestrator would kill it soon."""
    from imgsvc.runtime import logs  # noqa: PLC0415 - what needs a deadline has loaded it

    logs.get("cli").error("shutdown.overdue")
    os._exit(1)
