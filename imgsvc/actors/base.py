"""What all actors share, and what those share that live by a mailbox."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeGuard, TypeVar

import orjson
import structlog
from pydantic import ValidationError

from imgsvc.domain import backoff
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.messages import Compressed, Fetched, ImageJob, Reused, Times, WebhookJob
from imgsvc.imaging.pool import CodecPool
from imgsvc.ledger import Failed, Ledger
from imgsvc.mailboxes.envelope import Envelope, Facts, Job
from imgsvc.mailboxes.inbox import BLOCK_MS
from imgsvc.mailboxes.keys import COPIES, FETCH, NOTIFY
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.mailboxes.traffic import Traffic
from imgsvc.outbound.client import Outbound
from imgsvc.outbound.politeness import Politeness
from imgsvc.runtime import logs, redaction
from imgsvc.runtime.cancellation import cancel_and_wait
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.priority import PRIORITY
from imgsvc.runtime.settings import Settings
from imgsvc.storage.bucket import Bucket
from imgsvc.storage.spool import Spool

_BEGIN: ContextVar[Callable[[], None]] = ContextVar("begin", default=lambda: None)
# Waits between tries while something the work needs is away; the last is repeated.
_AWAY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_REMIND_EVERY = 12  # tries, a minute, of what somebody has to mend


@dataclass(frozen=True, slots=True)
class Parts:
    """What actors are made of; put together in ``app``."""

    settings: Settings
    metrics: Metrics
    mailboxes: Mailboxes
    ledger: Ledger
    spool: Spool
    outbound: Outbound
    codec: CodecPool
    bucket: Bucket
    politeness: Politeness
    traffic: Traffic


class Actor(ABC):
    """One behaviour that runs until told to stop.

    The supervisor calls ``run``; when it raises, the actor is made anew and run again.
    """

    name: ClassVar[str]

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.log = logs.get(self.name)
        self.stopping = asyncio.Event()

    @abstractmethod
    async def run(self) -> None:
        """Work until ``stop`` was called and what is in hand is finished."""

    def stop(self) -> None:
        """Take nothing new."""
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but not longer than until ``stop``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    async def wait_out(self, error: ServiceError, tries: int) -> None:
        """Wait before trying again what could not be done because something is away.

        Args:
            error: what was raised.
            tries: how often it was in a row, from 1.

        Raises:
            ServiceError: the error, if nothing is away.
        """
        if error.code is not ErrorCode.UNAVAILABLE:
            raise error
        if error.remedy and tries % _REMIND_EVERY == 1:
            self.log.error("dependency.refuses", reason=error.detail, remedy=error.remedy)
        elif tries == 1:
            self.log.warning(
                "dependency.away", reason=error.detail, cause=redaction.of_error(error.__cause__)
            )
        await self.back_off(tries)

    async def back_off(self, tries: int) -> None:
        """Wait before the next try; longer, the more there were in a row."""
        wait = _AWAY_S[min(tries, len(_AWAY_S)) - 1]
        await self.pause(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads replicas


# What an actor decides about a message; applying it is the base class' business.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What came of a message.

    Attributes:
        event: the name of the one line that is logged about it.
        told: what that line says beyond which message it was and how long it took.
    """

    event: str
    told: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HandOff(_Verdict):
    """Pass it on."""

    to: str
    job: Job
    facts: Facts = None


@dataclass(frozen=True, slots=True)
class Done(_Verdict):
    """Nothing is left to do."""


@dataclass(frozen=True, slots=True)
class Later(_Verdict):
    """Bring it back to this mailbox after some time."""

    job: Job
    delay_s: float


@dataclass(frozen=True, slots=True)
class Bury(_Verdict):
    """It cannot be done; keep it with the reason until someone acts."""

    reason: str


Verdict = HandOff | Done | Later | Bury

J = TypeVar("J", ImageJob, WebhookJob)


class MailboxActor(Actor, Generic[J]):
    """An actor that takes messages, decides about each, and has the decision carried out.

    Subclasses say what ``handle`` does with one message. It never touches Redis: it returns a
    verdict, which is applied by a script that acts only if the message is still ours. Every
    ``handle`` may run twice for one message, and says in its docstring why that is safe.
    """

    jobs: ClassVar[type[ImageJob | WebhookJob]]
    # Whether the mailbox is this replica's own: then it is emptied before leaving.
    own_lane: ClassVar[bool] = False
    # How many to take in one go at most, so that replicas which wait for work share it.
    most_at_once: ClassVar[int] = 100

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._inbox = parts.mailboxes.inbox(self.mailbox())
        self._tasks: set[asyncio.Task[None]] = set()
        self._begins: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()

    @abstractmethod
    def mailbox(self) -> str:
        """The mailbox this actor lives by."""

    @abstractmethod
    def capacity(self) -> int:
        """How many messages may be in hand at once; may change."""

    @abstractmethod
    async def handle(self, job: J, facts: Facts) -> Verdict:
        """Do the work of one message and say what becomes of it.

        Raises:
            ServiceError: UNAVAILABLE if something it needs is away; it is then called again.
        """

    @abstractmethod
    async def give_up(self, job: J, reason: str) -> None:
        """Record in the ledger that the message's work failed for good."""

    def begin(self) -> None:
        """Say, while a message is handled, that it waits no more: the work on it begins now.

        Should the process die of that work, the message is charged for it, and given up in the
        end. Nobody waits until this is noted: to be late with it costs one more try.
        """
        _BEGIN.get()()

    async def _note_begin(self, envelope: Envelope) -> None:
        with contextlib.suppress(ServiceError):
            await self.parts.mailboxes.streams.begin(envelope)

    def room_changed(self) -> None:
        """Have ``capacity`` asked again."""
        self._room.set()

    async def run(self) -> None:
        """Take as many messages as there are free slots.

        On stop, finish those in hand, and those that wait in a lane of this replica's own.
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
            # The time limit is for capacities that change without anybody saying so.
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
            # Still pending in our name, so nobody else will take it.
            self.log.exception("message.dropped", entry=envelope.entry_id)
            await self.back_off(len(_AWAY_S))
            self._inbox.take_again(envelope)

    async def _process(self, envelope: Envelope) -> None:
        job = self._read(envelope)
        if job is None:
            return  # still pending, and in hand so that it is not read again
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
                return  # stopping: the message goes back to the others
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
            **verdict.told,
        )

    def _read(self, envelope: Envelope) -> J | None:
        try:
            job = self.jobs.model_validate_json(envelope.job, by_name=False)
        except ValidationError as error:
            # Written by another version: it is left for a replica that understands it.
            problems = [e["msg"] for e in error.errors()]
            self.log.error(  # noqa: TRY400 - a traceback would tell nothing more
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
                    return Bury(reason, event="message.buried", told={"reason": reason})
                return await self.handle(job, _facts(envelope))
            except Exception as error:
                if _is_away(error):
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
        """Carry a verdict out; repeated whatever is raised, for the scripts act only once.

        Nobody else may take the message while this replica lives, so to give up would be to lose it
        for as long as its lease lasts.
        """
        tries, ours = 0, False
        while not (self.stopping.is_set() and tries > len(_AWAY_S)):
            try:
                ours = await self._carry_out(envelope, verdict)
                break
            except Exception as error:
                tries += 1
                if _is_away(error):
                    await self.wait_out(error, tries)
                else:
                    self.log.exception("message.not_moved", tries=tries)
                    await self.back_off(tries)
        if isinstance(verdict, HandOff) and isinstance(verdict.facts, Fetched | Compressed):
            if ours:
                self.parts.spool.let_go(verdict.facts.file)
            else:
                with contextlib.suppress(OSError):  # it is swept later
                    await self.parts.spool.remove(verdict.facts.file)
        return ours

    async def _carry_out(self, envelope: Envelope, verdict: Verdict) -> bool:
        mailboxes = self.parts.mailboxes
        match verdict:
            case HandOff(to, job, facts):
                return await mailboxes.streams.hand_off(envelope, to, job, facts)
            case Done():
                return await mailboxes.streams.settle(envelope)
            case Later(job, delay_s):
                return await mailboxes.delayed.put_aside(envelope, job, delay_s)
            case Bury(reason):
                return await mailboxes.dead_letters.bury(envelope, reason)


class ImageActor(MailboxActor[ImageJob]):
    """A mailbox actor whose messages are images."""

    jobs = ImageJob

    async def fail(
        self,
        job: ImageJob,
        code: ErrorCode,
        detail: str,
        ms: Times | None = None,
        cause: str | None = None,
    ) -> Verdict:
        """Write that an image failed, and pass on what that leads to; the cause is but logged."""
        failed = Failed(code, detail, ms or {})
        cancel_and_wait = await self.parts.ledger.finish(
            job.request_id, job.product, job.index, failed, job.turn
        )
        if cancel_and_wait.written:
            self.parts.metrics.images.labels("FAILED", code.name).inc()
        told = {"code": code.name, "detail": detail} | ({"cause": cause} if cause else {})
        return self.ended(job, due=cancel_and_wait.due, event="image.failed", told=told)

    async def give_up(self, job: ImageJob, reason: str) -> None:
        """Record that an image failed for reasons of ours; the reason stays with us."""
        self.log.error("image.given_up", reason=reason)
        await self.fail(job, ErrorCode.INTERNAL, ErrorCode.INTERNAL.message)

    async def closed(self, job: ImageJob) -> Verdict:
        """What to do about an image that is not open any more.

        Whoever closed it may have died before looking whether it was the last one.
        """
        due = await self.parts.ledger.complete(job.request_id)
        return self.ended(job, due=due, event="image.void", told={})

    def ended(self, job: ImageJob, *, due: bool, event: str, told: Mapping[str, object]) -> Verdict:
        """The verdict on an image that is terminal; ``due`` if a webhook is, which no copy is then."""
        if due:
            webhook = WebhookJob(request_id=job.request_id, call_id=job.call_id)
            return HandOff(NOTIFY, webhook, event=event, told=told)
        if job.copied:
            return HandOff(COPIES, job, event=event, told=told)
        return Done(event=event, told=told)

    def again(self, job: ImageJob) -> Verdict:
        """The verdict on an image whose file is gone: it is fetched once more."""
        return HandOff(FETCH, job, event="image.file_gone")


def _is_away(error: Exception) -> TypeGuard[ServiceError]:
    """Whether something that the work needs is away, and may come back."""
    return isinstance(error, ServiceError) and error.code is ErrorCode.UNAVAILABLE


def _facts(envelope: Envelope) -> Facts:
    if not envelope.facts:
        return None
    told = orjson.loads(envelope.facts)
    kind = Reused if "output" in told else Compressed if "bytes_out" in told else Fetched
    return kind.model_validate(told)


def _image(job: Job) -> dict[str, str]:
    return {"image": f"{job.product}-{job.index}"} if isinstance(job, ImageJob) else {}
