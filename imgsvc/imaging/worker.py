"""One worker process as the service sees it: start it, run a task in it, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging import worker_process
from imgsvc.imaging.tasks import Answer, Task
from imgsvc.runtime.settings import Codec

_KEPT_VARIABLES = frozenset({"PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "VIRTUAL_ENV"})
# For glibc; other libraries ignore it. A worker keeps the memory of one image for the next, up to
# 128 MiB. Giving it back would mean that every page is made anew, which costs 12 % more CPU.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
_START_ATTEMPTS = 5


class Worker:
    """One process, behind an executor of its own.

    Args:
        context: starts processes.
        settings: limits of the process and of its tasks.
        folder: where it reads and writes files; None: files are not restricted.
        lost: called with the reason when the process dies at its start.
    """

    def __init__(
        self,
        context: BaseContext,
        settings: Codec,
        folder: Path | None,
        lost: Callable[[str], None],
    ) -> None:
        self._context = context
        self._settings = settings
        self._folder = folder
        self._lost = lost
        self._executor: ProcessPoolExecutor | None = None
        self._pid = 0
        self.tasks = 0
        self.protections: tuple[str, ...] = ()  # those that are in force

    async def start(self) -> None:
        """Start the process, and again if it dies before it answers.

        Raises:
            ServiceError: UNAVAILABLE if it dies every time.
        """
        for _ in range(_START_ATTEMPTS):
            try:
                await self._start()
            except (BrokenProcessPool, EOFError, OSError):  # the last two come from the fork server
                self._lost("start")
                self.stop(kill=True)
            else:
                return
        raise ServiceError(ErrorCode.UNAVAILABLE, "No codec worker can be started.")

    async def _start(self) -> None:
        with _scrubbed_environment():
            forkserver.ensure_running()  # it may have been lost
        self._executor = ProcessPoolExecutor(
            1,
            self._context,
            initializer=worker_process.prepare,
            initargs=(self._settings, self._folder),
        )
        self.tasks = 0
        with _hidden_main_module():
            introduced = asyncio.get_running_loop().run_in_executor(
                self._executor, worker_process.introduce
            )
        self._pid, self.protections = await introduced

    async def run(self, task: Task, memory_bytes: int | None) -> Answer:
        """Run a task, in a new process if there is none.

        Args:
            task: which file.
            memory_bytes: estimated memory that it may take; None for no bound.

        Raises:
            BrokenProcessPool: the process died.
            FileNotFoundError: the source is gone.
            OSError: the target cannot be written.
            ServiceError: UNAVAILABLE if no process can be started.
        """
        if self._executor is None:
            await self.start()
        self.tasks += 1
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, worker_process.encode, task, self._settings, memory_bytes
        )

    def stop(self, *, kill: bool) -> None:
        """Let the process end, or kill it; the next ``run`` starts another."""
        if self._executor is None:
            return
        if kill and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor, self._pid = None, 0


@contextlib.contextmanager
def _scrubbed_environment() -> Iterator[None]:
    """Remove credentials from the environment that the fork server inherits: no decoder needs them."""
    original = dict(os.environ)
    for name in original.keys() - _KEPT_VARIABLES:
        del os.environ[name]
    os.environ.update(_ALLOCATOR)
    try:
        yield
    finally:
        for name in _ALLOCATOR.keys() - original.keys():
            del os.environ[name]
        os.environ.update(original)


@contextlib.contextmanager
def _hidden_main_module() -> Iterator[None]:
    """Hide the name of the running program from a new worker, which would import it.

    That would load the clients of Redis, MongoDB and the bucket, and take three times the memory.
    """
    main = sys.modules["__main__"]
    names = main.__spec__, getattr(main, "__file__", None)
    main.__spec__ = main.__file__ = None
    try:
        yield
    finally:
        main.__spec__, main.__file__ = names
