"""Worker processes that decode and encode: one single-worker pool for each core.

Separate pools, because one lost process breaks a whole ``ProcessPoolExecutor``: this way it costs
the image that killed it and nobody else's. A worker that overruns its deadline is killed; waiting
for it would leave it running. Workers are replaced after a number of tasks from outside, since
``max_tasks_per_child`` can deadlock (cpython gh-115634).
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging import sandbox
from imgsvc.runtime import logs
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.priority import PRIORITY
from imgsvc.runtime.priority_semaphore import PrioritySemaphore
from imgsvc.runtime.settings import Codec

_KEPT_VARIABLES = frozenset({"PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "VIRTUAL_ENV"})
# For glibc: a worker keeps the memory of one image for the next, up to 128 MiB, instead of giving
# it back and having every page of it made anew. It costs 12 % less CPU; elsewhere it means nothing.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
_START_ATTEMPTS = 5
_NICE = 5  # callers wait for the parent process, which also feeds the workers, and for servers


@dataclass(frozen=True, slots=True)
class Task:
    """One file to encode into another."""

    source: Path
    target: Path
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker says of a file that worked out; the bytes are in the target."""

    bytes_out: int
    format: str
    width: int
    height: int
    note: str
    ms: int  # that the worker took


@dataclass(frozen=True, slots=True)
class _Refusal:
    # Workers answer with codes: a pickled exception could carry anything, or not unpickle.
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class _NeedsMemory:
    # Nothing was decoded: to be run again with so much of the budget.
    needed_bytes: int


_Answer = Result | _Refusal | _NeedsMemory


class _Worker:
    """One process, behind an executor of its own."""

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
        self.protections: tuple[str, ...] = ()  # that are in force

    async def start(self) -> None:
        """Start the process, again if it does not live long enough to answer.

        Raises:
            ServiceError: UNAVAILABLE if none does.
        """
        for _ in range(_START_ATTEMPTS):
            try:
                await self._start()
            except (BrokenProcessPool, EOFError, OSError):  # the last two: of the fork server
                self._lost("start")
                self.stop(kill=True)
            else:
                return
        raise ServiceError(ErrorCode.UNAVAILABLE, "No codec worker can be started.")

    async def _start(self) -> None:
        with _scrubbed_environment():
            forkserver.ensure_running()  # it may have been lost; usually this does nothing
        self._executor = ProcessPoolExecutor(
            1, self._context, initializer=_prepare, initargs=(self._settings, self._folder)
        )
        self.tasks = 0
        with _nameless_program():
            asked = asyncio.get_running_loop().run_in_executor(self._executor, _introduce)
        self._pid, self.protections = await asked

    async def run(self, task: Task, memory_bytes: int | None) -> _Answer:
        if self._executor is None:
            await self.start()
        self.tasks += 1
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, _encode, task, self._settings, memory_bytes
        )

    def stop(self, *, kill: bool) -> None:
        """Let the process end, or end it at once; the next ``run`` starts another."""
        if self._executor is None:
            return
        if kill and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor, self._pid = None, 0


class CodecPool:
    """All worker processes of this replica.

    Args:
        settings: how many, and their limits.
        metrics: counts of lost workers.
        folder: where all files are that they read and write; None: files are not restricted.
    """

    def __init__(self, settings: Codec, metrics: Metrics, folder: Path | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._log = logs.get("codec_pool")
        # Forked from a server that holds neither threads nor sockets of ours.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["imgsvc.imaging.codec", "imgsvc.imaging.tuning", "imgsvc.imaging.sandbox"]
        )
        self._workers = [
            _Worker(context, settings, folder, self._count_lost)
            for _ in range(settings.worker_count)
        ]
        self._idle: list[_Worker] = []
        self._free_workers = PrioritySemaphore(self.size)
        # An image whose estimate exceeds its worker's share waits until there is so much to
        # spare; most never do, and cost no extra round. Those that have a worker go in the order
        # of asking.
        self._memory = PrioritySemaphore(settings.budget_bytes)

    @property
    def size(self) -> int:
        """Number of worker processes."""
        return len(self._workers)

    @property
    def protections(self) -> tuple[str, ...]:
        """What the kernel keeps the workers from, as far as it can."""
        return self._workers[0].protections

    async def start(self) -> None:
        """Start the processes.

        Raises:
            ServiceError: UNAVAILABLE if they die at once, again and again.
        """
        sandbox.hide()
        await asyncio.gather(*(worker.start() for worker in self._workers))
        self._idle += self._workers

    async def encode(self, task: Task, begin: Callable[[], None] = lambda: None) -> Result:
        """Encode one file.

        Args:
            task: which.
            begin: called when its turn has come.

        Raises:
            FileNotFoundError: the source is gone.
            ServiceError: with the code of an image that cannot be encoded; CODEC_TIMEOUT if it
                overran ``[codec] task_s``, CODEC_CRASHED if its worker died, UNAVAILABLE if the
                target cannot be written or no worker starts.
        """
        share = self._settings.budget_bytes // self.size
        async with self._free_workers.hold(priority=PRIORITY.get()):
            async with self._memory.hold(share):
                begin()
                answer = await self._run(task, share)
            if isinstance(answer, _NeedsMemory):
                async with self._memory.hold(answer.needed_bytes):
                    answer = await self._run(task, None)
        if isinstance(answer, Result):
            return answer
        if isinstance(answer, _Refusal):
            raise ServiceError(ErrorCode[answer.code], answer.detail)
        raise AssertionError("memory without bound was not enough")

    async def _run(self, task: Task, memory_bytes: int | None) -> _Answer:
        worker = self._idle.pop()  # the semaphore admits no more than there are
        try:
            async with asyncio.timeout(self._settings.task_s):
                return await worker.run(task, memory_bytes)
        except TimeoutError:
            self._lose(worker, "deadline")
            raise ServiceError(
                ErrorCode.CODEC_TIMEOUT,
                f"Decoding or encoding took more than {self._settings.task_s:g} s.",
            ) from None
        except BrokenProcessPool:
            self._lose(worker, "crash")
            raise ServiceError(ErrorCode.CODEC_CRASHED) from None
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ServiceError(
                ErrorCode.UNAVAILABLE, "The spool cannot be written to.", retry_after_s=5
            ) from error
        except asyncio.CancelledError:
            self._lose(worker, "cancelled")
            raise
        finally:
            if worker.tasks >= self._settings.tasks_per_worker:
                worker.stop(kill=False)
            self._idle.append(worker)

    def _lose(self, worker: _Worker, reason: str) -> None:
        self._count_lost(reason)
        worker.stop(kill=True)

    def _count_lost(self, reason: str) -> None:
        self._log.warning("codec.worker_lost", reason=reason)
        self._metrics.codec_kills.labels(reason).inc()

    def close(self) -> None:
        """End all processes at once; nobody waits for their work any more."""
        for worker in self._workers:
            worker.stop(kill=True)


@contextlib.contextmanager
def _scrubbed_environment() -> Iterator[None]:
    """A decoder has no use for credentials, not even for those its process was born with."""
    kept = dict(os.environ)
    for name in kept.keys() - _KEPT_VARIABLES:
        del os.environ[name]
    os.environ.update(_ALLOCATOR)
    try:
        yield
    finally:
        for name in _ALLOCATOR.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept)


@contextlib.contextmanager
def _nameless_program() -> Iterator[None]:
    """A new worker would import the program that runs here, if it learnt its name.

    With it would come all clients of Redis, MongoDB and the bucket, and three times the memory.
    """
    main = sys.modules["__main__"]
    names = main.__spec__, getattr(main, "__file__", None)
    main.__spec__ = main.__file__ = None
    try:
        yield
    finally:
        main.__spec__, main.__file__ = names


# What follows runs in the worker processes.


def _introduce() -> tuple[int, tuple[str, ...]]:
    return os.getpid(), sandbox.in_force()


def _prepare(settings: Codec, folder: Path | None) -> None:
    from imgsvc.imaging import tuning  # noqa: PLC0415 - the parent process has no business with PIL

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(_NICE)
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = settings.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # Writing more fails with EFBIG: Python ignores the signal that would kill.
    resource.setrlimit(resource.RLIMIT_FSIZE, (settings.max_output_bytes,) * 2)
    tuning.prepare_process()
    # Decoders' libraries complain here of what is wrong with a file, in words that it may choose.
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - needs its descriptor
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    niceness = _open_niceness()
    sandbox.confine(folder)
    # After that: a thread that is there already would be free.
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if niceness is not None:
        threading.Thread(target=_let_others_go_first, args=(niceness,), daemon=True).start()


def _die_with_parent() -> None:
    # The executor's queue never reports its end: each worker holds the writing side too.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _open_niceness() -> int | None:
    try:
        return os.open("/proc/self/autogroup", os.O_WRONLY)
    except OSError:  # there may be no such thing
        return None


def _let_others_go_first(niceness: int) -> None:
    # Where the kernel shares its processors among sessions (autogroup, see sched(7)), niceness
    # counts within one only: so each worker has its own, and that is nice beside all others.
    told = False
    with contextlib.suppress(OSError), os.fdopen(niceness, "wb", 0) as group:
        while not told:
            try:
                told = bool(group.write(str(_NICE).encode()))
            except BlockingIOError:  # it takes ten of these a second from all users together
                time.sleep(0.1)


def _encode(task: Task, settings: Codec, memory_bytes: int | None) -> _Answer:
    from imgsvc.imaging import admit, codec, tuning  # noqa: PLC0415

    started = time.monotonic()
    # The limit counts from the process' birth; the default action of SIGXCPU kills, where a
    # handler in Python would wait for the decoder to return.
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime + settings.task_s * 2) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))
    limits = admit.Limits(
        max_pixels=settings.max_pixels,
        max_frames=settings.max_frames,
        max_total_pixels=settings.max_total_pixels,
        max_jpeg_scans=settings.max_jpeg_scans,
        memory_bytes=memory_bytes,
    )
    try:
        encoded = codec.encode(task.source.read_bytes(), task.recipe, limits)
    except admit.NeedsMemoryError as error:
        return _NeedsMemory(error.needed_bytes)
    except ServiceError as error:
        return _Refusal(error.code.name, error.detail)
    finally:
        tuning.release_memory()
    if len(encoded.data) > settings.max_output_bytes:
        return _Refusal(
            ErrorCode.TOO_LARGE.name,
            f"The result has more than {settings.max_output_bytes:,} bytes; ask for another format.",
        )
    task.target.write_bytes(encoded.data)
    return Result(
        bytes_out=len(encoded.data),
        format=encoded.format,
        width=encoded.width,
        height=encoded.height,
        note=encoded.note,
        ms=round((time.monotonic() - started) * 1000),
    )
