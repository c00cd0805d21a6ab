"""How this replica behaves towards origins: so many connections, patience, and leaving alone.

An image whose origin has no place for it waits here for a moment, if few do; else it goes back
to Redis for a moment, and holds nobody up who goes elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from yarl import URL

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.mailboxes.origins import SHARE_S, Failure, Origins, Report, Standing
from imgsvc.outbound.client import KEEP_ALIVE_S
from imgsvc.outbound.downloads import StatusError
from imgsvc.outbound.host_limits import HostLines
from imgsvc.runtime import logs
from imgsvc.runtime.metrics import Metrics

_REPORT_EVERY_S = 1.0
_BATCH = 100
_IDLE_S = 2 * KEEP_ALIVE_S + 1  # after this no connection is open
_SOON_S = 0.5  # for so long a place is waited for, by as many as there are places
_NO_PLACE_S = 1.0  # until other replicas may have left a place
_SPREAD = 0.1  # of the wait for the end of a rest, so that not all come at one moment

# How an origin fails; anything else that is wrong with a file, it answered.
_FAILURES = frozenset(
    {
        ErrorCode.DNS_FAILED,
        ErrorCode.CONNECT_FAILED,
        ErrorCode.FETCH_TIMEOUT,
        ErrorCode.FETCH_TRUNCATED,
    }
)
_log = logs.get("politeness")


class PutOffError(Exception):
    """It is not an image's turn.

    Attributes:
        origin: whose place it wants.
        wait_s: after which to come back.
        reason: ``line`` if all places are taken, ``rest`` if the origin is left alone.
    """

    def __init__(self, origin: str, wait_s: float, reason: str) -> None:
        self.origin, self.wait_s, self.reason = origin, wait_s, reason
        super().__init__(f"{origin}: {reason} for {wait_s:.3f} s")


class GivenUpError(ServiceError):
    """An origin failed so often that its images do not wait for it."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(
            code, f"{code.message} It failed time and again, so it is left alone for a while."
        )


def asks_for_time(error: ServiceError) -> bool:
    """Whether an origin asks to come back later."""
    return isinstance(error, StatusError) and error.asks_for_time


@dataclass(slots=True)
class _Origin:
    """An origin as this replica sees it."""

    standing: Standing
    asked: float  # when its standing was told
    used: float  # when somebody last came or went
    freed: float  # when somebody last went, or else when it was first heard of
    opened: int = 0  # connections that may be open, idle ones included
    busiest: int = 0  # how many were inside at once ...
    since: float = 0.0  # ... from then on ...
    needed: int = 0  # ... and before
    worked: bool = False  # since it was reported about
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)  # here, for a place

    def needs_asking(self, now: float) -> bool:
        """Whether its standing is too old to act on."""
        rest_s = self.standing.rest_s
        return now - self.asked >= (rest_s or SHARE_S)

    def rest_left_s(self, now: float) -> float:
        """For how long it is still to be left alone."""
        rest_s = self.standing.rest_s
        return max(0.0, self.asked + rest_s - now) if rest_s else 0.0

    def entered(self, inside: int) -> bool:
        """Somebody came, and so many are inside now; whether a connection is to be closed after.

        Not only one beyond our places, but one that few have need of, too: idle ones are used in
        turn, so that a trickle of visits would keep all of them open.
        """
        self.opened = max(self.opened, inside)
        self.busiest = max(self.busiest, inside)
        return self.opened > min(self.standing.places, self.recently_needed)

    @property
    def recently_needed(self) -> int:
        """How many were inside at once of late."""
        return max(self.needed, self.busiest)

    def left(self, inside: int, now: float, *, closed: bool) -> None:
        """Somebody went, so many still are inside, and perhaps a connection is no more."""
        self.used = self.freed = now
        if closed:
            self.opened = max(self.opened - 1, inside)
        while self.waiting:
            called = self.waiting.popleft()
            if not called.done():
                called.set_result(None)
                break

    def is_quick(self, now: float) -> bool:
        """Whether a place should be free soon; who waits for a slow one would keep others out."""
        return now - self.freed <= _SOON_S

    async def wait_for_a_place(self, limit_s: float) -> None:
        """Until somebody left whose place nobody was called to, or the time is up."""
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(called)
        try:
            await asyncio.wait((called,), timeout=limit_s)
        finally:
            if not called.done():
                self.waiting.remove(called)

    def forget_idle(self, inside: int, now: float) -> None:
        """What nobody needed for some time is not open any more."""
        if now - self.since > _IDLE_S:
            self.opened = min(self.opened, self.recently_needed)
            self.needed, self.busiest, self.since = self.busiest, inside, now

    def praise(self) -> None:
        """It worked; what was under way when it failed proves nothing."""
        self.worked = not self.standing.rest_s


class Politeness:
    """Lets images visit origins.

    Args:
        origins: what all replicas know of origins.
        metrics: where it is told that origins rest.
    """

    def __init__(self, origins: Origins, metrics: Metrics) -> None:
        self._shared = origins
        self._metrics = metrics
        self._lines = HostLines()
        self._origins: dict[str, _Origin] = {}
        self._asking = asyncio.Lock()  # so that Redis hears what we say in its order

    @contextlib.asynccontextmanager
    async def visit(self, url: URL) -> AsyncIterator[bool]:
        """Be at an origin; yields whether the connection is to be closed after use.

        Args:
            url: the origin: scheme, host and port.

        Raises:
            PutOffError: not now.
            GivenUpError: not at all.
            ServiceError: UNAVAILABLE if Redis is away and nobody can say.
        """
        name = _name(url)
        origin = await self._enter(name)
        closing = origin.entered(self._lines.inside(name))
        try:
            yield closing
        except ServiceError as error:
            await self._judge(name, origin, error)
            raise
        else:
            origin.praise()
        finally:
            now = time.monotonic()
            self._lines.leave(name)
            origin.left(self._lines.inside(name), now, closed=closing)

    async def keep_sharing(self) -> None:
        """Report about origins to the other replicas, until cancelled."""
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            with contextlib.suppress(ServiceError):  # then shares lapse, and images ask
                await self._report()

    async def _report(self) -> None:
        async with self._asking:
            now = time.monotonic()
            reports: dict[str, Report] = {}
            for name, origin in list(self._origins.items()):
                origin.forget_idle(self._lines.inside(name), now)
                if not self._lines.inside(name) and now - origin.used > _IDLE_S:
                    if not origin.rest_left_s(now):
                        del self._origins[name]
                        reports[name] = Report(open=None, worked=origin.worked)
                elif origin.standing.rest_s:  # what is open counts; who tries is for them to say
                    reports[name] = Report(open=origin.opened, wants=False)
                else:
                    reports[name] = self._about(origin)
            names = list(reports)
            for at in range(0, len(names), _BATCH):
                await self._ask({name: reports[name] for name in names[at : at + _BATCH]})

    async def _enter(self, name: str) -> _Origin:
        """Take a place at an origin, perhaps after a short wait for it."""
        deadline = time.monotonic() + _SOON_S
        while True:
            origin = await self._look_at(name)
            now = time.monotonic()
            if rest_s := origin.rest_left_s(now):
                if origin.standing.given_up:
                    raise GivenUpError(origin.standing.given_up)
                spread = random.uniform(1, 1 + _SPREAD)  # noqa: S311 - no secret
                raise PutOffError(name, rest_s * spread, "rest")
            places = origin.standing.places
            if self._lines.enter(name, places):
                return origin
            if now >= deadline or not origin.is_quick(now) or len(origin.waiting) >= places:
                inside = self._lines.inside(name)
                wait_s = self._lines.ask_again_s(name, now) if inside else _NO_PLACE_S
                raise PutOffError(name, wait_s, "line")
            await origin.wait_for_a_place(deadline - now)

    async def _look_at(self, name: str) -> _Origin:
        """An origin with how it stands."""
        while not (origin := self._known(name)):
            async with self._asking:
                if not self._known(name):  # nobody asked while we waited to
                    stale = self._origins.get(name)
                    await self._ask({name: self._about(stale) if stale else Report()})
        origin.used = time.monotonic()
        return origin

    def _known(self, name: str) -> _Origin | None:
        """An origin whose standing may be acted on."""
        origin = self._origins.get(name)
        return origin if origin and not origin.needs_asking(time.monotonic()) else None

    def _about(self, origin: _Origin) -> Report:
        return Report(open=origin.opened, worked=origin.worked)

    async def _ask(self, reports: dict[str, Report]) -> None:
        """Report, and note how the origins stand."""
        now = time.monotonic()  # before: a share must not be used for longer than it is held
        for name, standing in (await self._shared.share(reports)).items():
            report = reports[name]
            if report.open is not None and (report.wants or standing.rest_s):
                self._note(name, standing, now)

    def _note(self, name: str, standing: Standing, now: float) -> None:
        origin = self._origins.setdefault(name, _Origin(standing, now, now, now))
        origin.standing, origin.asked = standing, now
        origin.worked = False

    async def _judge(self, name: str, origin: _Origin, error: ServiceError) -> None:
        """Have an origin left alone if it asks for that or keeps failing."""
        if error.code is ErrorCode.UNAVAILABLE:
            return  # ours
        passing = error.retry_after_s is not None or error.code in _FAILURES
        if not passing:
            origin.praise()
            return
        failure = Failure(
            error.code, asks_for_time(error), error.retry_after_s or 0.0, origin.worked
        )
        with contextlib.suppress(ServiceError):  # nobody can be told; the next failure may
            async with self._asking:  # an answer on its way would end the rest that begins
                standing, begins = await self._shared.blame(name, failure)
                origin.worked = False
                if standing.rest_s:
                    self._note(name, standing, time.monotonic())
            if begins:
                self._metrics.origin_rests.inc()
                _log.warning(
                    "origin.rests",
                    origin=name,
                    code=error.code.name,
                    rest_s=standing.rest_s,
                    given_up=standing.given_up is not None,
                    **({"cause": error.cause} if error.cause else {}),
                )


def _name(url: URL) -> str:
    """An origin's; a name with a dot at its end is the same without."""
    host = url.raw_host or ""
    return str(url.with_host(host[:-1]) if host.endswith(".") else url)


class Trip:
    """One download's visits to origins, and the time that they took without waiting.

    Args:
        politeness: towards the origins.
        begin: called when an origin has let it in.
    """

    def __init__(self, politeness: Politeness, begin: Callable[[], None] = lambda: None) -> None:
        self._politeness = politeness
        self._begin = begin
        self.seconds = 0.0

    @contextlib.asynccontextmanager
    async def visit(self, url: URL) -> AsyncIterator[bool]:
        """As of ``Politeness``."""
        async with self._politeness.visit(url) as closing:
            entered = time.monotonic()
            self._begin()
            try:
                yield closing
            finally:
                self.seconds += time.monotonic() - entered
