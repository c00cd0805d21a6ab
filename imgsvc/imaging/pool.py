"""Dispatch images to worker processes: one for each core, each behind an executor of its own.

One lost process breaks a whole ``ProcessPoolExecutor``. With an executor for each worker, it costs
only the image that killed it. A worker that overruns its deadline is killed, because cancelling the
wait would leave it running. The pool replaces workers after a number of tasks by itself, because
``max_tasks_per_child`` can deadlock (cpython gh-115634).
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging import sandbox
from imgsvc.imaging.tasks import Answer, NeedsMemory, Refusal, Result, Task
from imgsvc.imaging.worker import Worker
from imgsvc.runtime import logs
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.priority import PRIORITY
from imgsvc.runtime.priority_semaphore import PrioritySemaphore
from imgsvc.runtime.settings import Codec


class CodecPool:
    """All worker processes of this replica.

    Args:
        settings: how many, and their limits.
        metrics: counts lost workers.
        folder: where they read and write files; None: files are not restricted.
    """

    def __init__(self, settings: Codec, metrics: Metrics, folder: Path | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._log = logs.get("codec_pool")
        # Workers are forked from a server that has no threads or sockets of ours.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["imgsvc.imaging.codec", "imgsvc.imaging.tuning", "imgsvc.imaging.worker_process"]
        )
        self._workers = [
            Worker(context, settings, folder, self._count_lost)
            for _ in range(settings.worker_count)
        ]
        self._idle: list[Worker] = []
        self._free_workers = PrioritySemaphore(self.size)
        # An image whose estimate exceeds its worker's share gives the share back and waits for as
        # much as it needs. Most images do not, and cost no extra round. Priority has been taken
        # into account by then, so here images are admitted in order of arrival.
        self._memory = PrioritySemaphore(settings.budget_bytes)

    @property
    def size(self) -> int:
        """Number of worker processes."""
        return len(self._workers)

    @property
    def protections(self) -> tuple[str, ...]:
        """The kernel's protections that are in force in the workers."""
        return self._workers[0].protections

    async def start(self) -> None:
        """Start the processes.

        Raises:
            ServiceError: UNAVAILABLE if one dies at every attempt.
        """
        sandbox.hide()
        await asyncio.gather(*(worker.start() for worker in self._workers))
        self._idle += self._workers

    async def encode(self, task: Task, begin: Callable[[], None] = lambda: None) -> Result:
        """Encode one file.

        Args:
            task: which.
            begin: called when a worker is about to start it.

        Raises:
            FileNotFoundError: the source is gone.
            ServiceError: the codec's refusal of the image; CODEC_TIMEOUT if it overran ``[codec]
                task_s``, CODEC_CRASHED if its worker died, UNAVAILABLE if the target cannot be
                written or no worker starts.
        """
        share = self._settings.budget_bytes // self.size
        async with self._free_workers.hold(priority=PRIORITY.get()):
            async with self._memory.hold(share):
                begin()
                answer = await self._run(task, share)
            if isinstance(answer, NeedsMemory):
                async with self._memory.hold(answer.needed_bytes):
                    answer = await self._run(task, None)
        if isinstance(answer, Result):
            return answer
        if isinstance(answer, Refusal):
            raise ServiceError(ErrorCode[answer.code], answer.detail)
        raise AssertionError("memory without bound was not enough")

    async def _run(self, task: Task, memory_bytes: int | None) -> Answer:
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

    def _lose(self, worker: Worker, reason: str) -> None:
        self._count_lost(reason)
        worker.stop(kill=True)

    def _count_lost(self, reason: str) -> None:
        self._log.warning("codec.worker_lost", reason=reason)
        self._metrics.codec_kills.labels(reason).inc()

    def close(self) -> None:
        """Kill all processes; nobody waits for their work any more."""
        for worker in self._workers:
            worker.stop(kill=True)
