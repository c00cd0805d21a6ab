"""How this replica behaves towards origins: few connections, patience, and leaving them alone.

An image whose origin has no connection free waits here for a moment if few others do. Else it goes
back to Redis for a moment, so that it holds up no image of another origin.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator

from yarl import URL

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.origins import OriginFailure
from imgsvc.outbound.bodies import StatusError
from imgsvc.outbound.host_limits import HostLimits
from imgsvc.outbound.known_origins import KnownOrigins, SharedOrigins
from imgsvc.outbound.origin import QUICK_S, Origin
from imgsvc.runtime import logs
from imgsvc.runtime.metrics import Metrics

_NONE_OF_OURS_S = 1.0  # until other replicas may have left us a share
_SPREAD = 0.1  # of the wait for the end of a rest, so that not all come at one moment

# How an origin fails. Whatever else is wrong with a file, the origin answered.
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
    """An image has to come back later.

    Attributes:
        origin: which it wants to visit.
        wait_s: after which to come back.
        reason: ``line`` if all connections are taken, ``rest`` if the origin is left alone.
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


class Politeness:
    """Lets images visit origins.

    Args:
        shared: what all replicas know of origins.
        metrics: where rests are counted.
    """

    def __init__(self, shared: SharedOrigins, metrics: Metrics) -> None:
        self._metrics = metrics
        self._limits = HostLimits()
        self._origins = KnownOrigins(shared, self._limits)

    async def keep_sharing(self) -> None:
        """Tell the other replicas about our origins again and again, until cancelled."""
        await self._origins.keep_sharing()

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
        closing = origin.entered(self._limits.inside(name))
        try:
            yield closing
        except ServiceError as error:
            await self._judge(name, origin, error)
            raise
        else:
            origin.note_success()
        finally:
            now = time.monotonic()
            self._limits.leave(name)
            origin.left(self._limits.inside(name), now, closed=closing)

    async def _enter(self, name: str) -> Origin:
        """Get one of an origin's connections, perhaps after a short wait."""
        deadline = time.monotonic() + QUICK_S
        while True:
            origin = await self._origins.find(name)
            now = time.monotonic()
            if rest_s := origin.rest_left_s(now):
                if origin.standing.given_up:
                    raise GivenUpError(origin.standing.given_up)
                spread = random.uniform(1, 1 + _SPREAD)  # noqa: S311 - no secret
                raise PutOffError(name, rest_s * spread, "rest")
            if self._limits.enter(name, origin.standing.connections):
                return origin
            if now >= deadline or not origin.is_worth_waiting_for(now):
                inside = self._limits.inside(name)
                wait_s = self._limits.ask_again_s(name, now) if inside else _NONE_OF_OURS_S
                raise PutOffError(name, wait_s, "line")
            await origin.wait(deadline - now)

    async def _judge(self, name: str, origin: Origin, error: ServiceError) -> None:
        """Have an origin left alone if it asks for that or keeps failing."""
        if error.code is ErrorCode.UNAVAILABLE:
            return  # ours
        passing = error.retry_after_s is not None or error.code in _FAILURES
        if not passing:
            origin.note_success()
            return
        asked_s = error.retry_after_s or 0.0 if asks_for_time(error) else None
        failure = OriginFailure(error.code, asked_s, origin.worked)
        with contextlib.suppress(ServiceError):  # nobody can be told; the next failure may
            standing, begins = await self._origins.blame(name, failure)
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
    """An origin's name; a host with a dot at its end is the same one without."""
    host = url.raw_host or ""
    return str(url.with_host(host[:-1]) if host.endswith(".") else url)
