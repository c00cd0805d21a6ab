"""Supervisor: runs the actors, and restarts those that crash."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence

from imgsvc.actors.actor import Actor
from imgsvc.actors.parts import Parts
from imgsvc.domain import backoff
from imgsvc.runtime import logs, redaction
from imgsvc.runtime.cancellation import wait_or_cancel

_RESTARTS = 6  # of one actor ...
_WITHIN_S = 60.0  # ... in this time are too many
_WAITS_S = backoff.exponential(_RESTARTS + 1, 0.2)


class GaveUpError(Exception):
    """An actor keeps crashing. The process must end so that somebody notices."""


class Supervisor:
    """Runs one actor of each kind.

    Args:
        parts: passed to every actor.
        pipeline: the kinds of actors, in the order in which to stop them.
    """

    def __init__(self, parts: Parts, pipeline: Sequence[type[Actor]]) -> None:
        self._parts = parts
        self._pipeline = pipeline
        self._actors: dict[type[Actor], Actor] = {}
        self._tasks: dict[type[Actor], asyncio.Task[None]] = {}
        self._stopping: set[type[Actor]] = set()
        self._log = logs.get("supervisor")

    async def run(self) -> None:
        """Run all actors until ``stop``.

        Raises:
            GaveUpError: an actor crashed too often. The others were cancelled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for kind in self._pipeline:
                    self._tasks[kind] = group.create_task(self._keep_running(kind), name=kind.name)
                await wait_or_cancel(*self._tasks.values())
        except* GaveUpError as errors:
            raise errors.exceptions[0] from None

    async def stop(self) -> None:
        """Stop all actors in the order of the pipeline, one after the other.

        So whoever fills a lane has stopped before the lane is drained, and the heartbeat goes on
        until the end.
        """
        for kind in self._pipeline:
            self._stopping.add(kind)
            self._actors[kind].stop()
            with contextlib.suppress(Exception):  # then the reads end by themselves, a little later
                await self._parts.mailboxes.readers.end_reads()
            await asyncio.wait({self._tasks[kind]})

    async def _keep_running(self, kind: type[Actor]) -> None:
        crashes: deque[float] = deque(maxlen=_RESTARTS)
        while kind not in self._stopping:
            actor = self._actors[kind] = kind(self._parts)
            try:
                await actor.run()
            except Exception as error:
                now = time.monotonic()
                if len(crashes) == _RESTARTS and now - crashes[0] < _WITHIN_S:
                    self._log.critical("actor.gave_up", actor=kind.name, exc_info=True)
                    reason = redaction.of_error(error)
                    raise GaveUpError(f"{kind.name} keeps crashing: {reason}") from error
                recent = sum(1 for at in crashes if now - at < _WITHIN_S)
                crashes.append(now)
                self._parts.metrics.actor_restarts.labels(kind.name).inc()
                self._log.exception("actor.crashed", actor=kind.name, wait_s=_WAITS_S[recent])
                await actor.pause(_WAITS_S[recent])
