"""A mailbox actor: takes messages, handles many at a time, and carries out its verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import ClassVar, Generic, TypeVar

import orjson
import structlog
from pydantic import ValidationError

from imgsvc.actors.actor import AWAY_S, Actor, is_away
from imgsvc.actors.parts import Parts
from imgsvc.actors.verdicts import Bury, HandOff, Verdict, carry_out
from imgsvc.domain import backoff
from imgsvc.domain.errors import ServiceError
from imgsvc.domain.messages import Compressed, Fetched, ImageJob, Reused, WebhookJob
from imgsvc.mailboxes.envelope import Envelope, Facts, Job
from imgsvc.mailboxes.inbox import BLOCK_MS
from imgsvc.runtime import redaction
from imgsvc.runtime.cancellation import cancel_and_wait
from imgsvc.runtime.priority import PRIORITY

_BEGIN: ContextVar[Callable[[], None]] = ContextVar("begin", default=lambda: None)

J = TypeVar("J", ImageJob, WebhookJob)


class MailboxActor(Actor, Generic[J]):
    """An actor that takes messages from a mailbox, and decides what becomes of each.

    A subclass says in ``handle`` what to do with one message. ``handle`` never touches Redis. It
    returns a verdict, and a script carries that out if the message is still ours. ``handle`` may run
    twice for one message; its docstring says why that is safe.
    """

    jobs: ClassVar[type[ImageJob | WebhookJob]]
    # Whether only this replica has the mailbox. Then it is emptied before the actor stops.
    own_lane: ClassVar[bool] = False
    # The most messages to take in one go, so that replicas which wait for work share it.
    most_at_once: ClassVar[int] = 100

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._inbox = parts.mailboxes.inbox(self.mailbox())
        self._tasks: set[asyncio.Task[None]] = set()
        self._begins: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()

    @abstractmethod
    def mailbox(self) -> str:
        """The mailbox to take messages from."""

    @abstractmethod
    def capacity(self) -> int:
        """The most messages to have in hand; may change over time."""

    @abstractmethod
    async def handle(self, job: J, facts: Facts) -> Verdict:
        """Do the work of one message, and decide what becomes of it.

        Raises:
            ServiceError: UNAVAILABLE if something that it needs is away; then it is called again.
        """

    @abstractmethod
    async def give_up(self, job: J, reason: str) -> None:
        """Record in the ledger that the work of a message failed for good."""

    def begin(self) -> None:
        """Note, within ``handle``, that the message has waited long enough and its work begins.

        If the process dies of that work, it counts as a failed delivery of the message, and too
        many of these make us give up. This does not wait until Redis has the note: if it comes
        too late, that costs one more try.
        """
        _BEGIN.get()()

    async def _note_begin(self, envelope: Envelope) -> None:
        with contextlib.suppress(ServiceError):
            await self.parts.mailboxes.streams.begin(envelope)

    def room_changed(self) -> None:
        """Have ``capacity`` looked at again."""
        self._room.set()

    async def run(self) -> None:
        """Take messages while there is capacity.

        After ``stop``, finish those in hand, and first empty the mailbox if it is this replica's own.
        """
        tries = 0
        try:
            while True:
                draining = self.stopping.is_set()
                if draining and not self.own_lane:
                    break
                free = self.capacity() - len(self._tasks)
                if free <= 0:
                    await self._wait_for_room()
                    continue
                try:
                    count = min(free, self.most_at_once)
                    envelopes = await self._inbox.take(count, 1 if draining else BLOCK_MS)
                except ServiceError as error:
                    tries += 1
                    await self.wait_out(error, tries)
                    if draining:
                        break
                    continue
                tries = 0
                if draining and not envelopes:
                    break
                for envelope in envelopes:
                    self._start(envelope)
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await cancel_and_wait(*self._tasks, *self._begins)
            await self._inbox.close()

    async def _wait_for_room(self) -> None:
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            # With a time limit, because a capacity may change without a call of `room_changed`.
            async with asyncio.timeout(0.5):
                await self._room.wait()

    def _start(self, envelope: Envelope) -> None:
        task = asyncio.create_task(self._work_on(envelope), name=f"{self.name}:{envelope.key}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.set()

    async def _work_on(self, envelope: Envelope) -> None:
        try:
            await self._process(envelope)
        except Exception:
            # It is still pending in our name, so no other replica will take it.
            self.log.exception("message.dropped", entry=envelope.entry_id)
            await self.back_off(len(AWAY_S))
            self._inbox.take_again(envelope)

    async def _process(self, envelope: Envelope) -> None:
        job = self._read(envelope)
        if job is None:
            return  # it stays pending, and in hand so that it is not read again
        PRIORITY.set(getattr(job, "priority", False))

        def begin() -> None:
            noting = asyncio.create_task(self._note_begin(envelope))
            self._begins.add(noting)
            noting.add_done_callback(self._begins.discard)

        _BEGIN.set(begin)
        structlog.contextvars.bind_contextvars(
            actor=self.name, request_id=job.request_id, call_id=job.call_id, **_image(job)
        )
        started = time.monotonic()
        metrics = self.parts.metrics
        with metrics.in_flight.labels(self.name).track_inprogress():
            verdict = await self._decide(envelope, job)
            if verdict is None:
                return  # stopping: the message goes back, for other replicas
            ours = await self._apply(envelope, verdict)
        self._inbox.release(envelope)
        seconds = time.monotonic() - started
        outcome = type(verdict).__name__.lower() if ours else "taken_over"
        metrics.handled_seconds.labels(self.name, outcome).observe(seconds)
        self.log.info(
            verdict.event,
            outcome=outcome,
            attempt=getattr(job, "attempt", 1),
            deliveries=envelope.deliveries,
            ms=round(seconds * 1000),
            **verdict.fields,
        )

    def _read(self, envelope: Envelope) -> J | None:
        try:
            job = self.jobs.model_validate_json(envelope.job, by_name=False)
        except ValidationError as error:
            # Another version wrote it. It is left for a replica that understands it.
            problems = [e["msg"] for e in error.errors()]
            self.log.error(  # noqa: TRY400 - a traceback would add nothing
                "message.unknown", entry=envelope.entry_id, problems=problems
            )
            return None
        return job  # type: ignore[return-value] # jobs is the class that J stands for

    async def _decide(self, envelope: Envelope, job: J) -> Verdict | None:
        most = self.parts.settings.redis.max_deliveries
        failures, away = envelope.deliveries, 0
        reason = "lost with the replica that worked on it, every time"
        while True:
            try:
                if failures >= most:
                    await self.give_up(job, reason)
                    return Bury(reason, event="message.buried", fields={"reason": reason})
                return await self.handle(job, _facts(envelope))
            except Exception as error:
                if is_away(error):
                    away += 1
                    await self.wait_out(error, away)
                else:
                    failures += 1
                    reason = str(redaction.of_error(error))
                    self.log.exception("message.failed", failures=failures)
                    await self.pause(backoff.exponential(most + 1, 0.1)[min(failures, most) - 1])
            if self.stopping.is_set():
                return None

    async def _apply(self, envelope: Envelope, verdict: Verdict) -> bool:
        """Carry out a verdict, again and again until it works; returns whether it was ours.

        While this replica lives no other takes the message. So giving up would lose it until its
        lease expires.
        """
        tries, ours = 0, False
        while not (self.stopping.is_set() and tries > len(AWAY_S)):
            try:
                ours = await carry_out(verdict, envelope, self.parts.mailboxes)
                break
            except Exception as error:
                tries += 1
                if is_away(error):
                    await self.wait_out(error, tries)
                else:
                    self.log.exception("message.not_moved", tries=tries)
                    await self.back_off(tries)
        if isinstance(verdict, HandOff) and isinstance(verdict.facts, Fetched | Compressed):
            if ours:
                self.parts.spool.let_go(verdict.facts.file)
            else:
                with contextlib.suppress(OSError):  # the Reaper removes it later
                    await self.parts.spool.remove(verdict.facts.file)
        return ours


def _facts(envelope: Envelope) -> Facts:
    if not envelope.facts:
        return None
    found = orjson.loads(envelope.facts)
    kind = Reused if "output" in found else Compressed if "bytes_out" in found else Fetched
    return kind.model_validate(found)


def _image(job: Job) -> dict[str, str]:
    return {"image": f"{job.product}-{job.index}"} if isinstance(job, ImageJob) else {}
