"""The origins that this replica uses, kept in step with the other replicas."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Protocol

from imgsvc.domain.errors import ServiceError
from imgsvc.domain.origins import OriginFailure, OriginStanding, OriginUse
from imgsvc.outbound.host_limits import HostLimits
from imgsvc.outbound.origin import Origin

_REPORT_EVERY_S = 1.0
_BATCH = 100


class SharedOrigins(Protocol):
    """What all replicas know of origins, wherever they keep it."""

    async def share(self, uses: Mapping[str, OriginUse]) -> dict[str, OriginStanding]:
        """Tell how this replica uses some origins, and learn how they stand.

        Raises:
            ServiceError: nobody can say.
        """

    async def blame(self, name: str, failure: OriginFailure) -> tuple[OriginStanding, bool]:
        """Tell that an origin failed.

        Returns:
            How it stands now, and whether a rest begins with this failure.

        Raises:
            ServiceError: nobody can be told.
        """


class KnownOrigins:
    """The origins by name.

    Args:
        shared: what all replicas know of them.
        limits: how many images are with each of them.
    """

    def __init__(self, shared: SharedOrigins, limits: HostLimits) -> None:
        self._shared = shared
        self._limits = limits
        self._origins: dict[str, Origin] = {}
        self._asking = asyncio.Lock()  # so that the others hear what we say in its order

    async def find(self, name: str) -> Origin:
        """An origin whose standing may be acted on.

        Raises:
            ServiceError: UNAVAILABLE if nobody can say how it stands.
        """
        while not (origin := self._current(name)):
            async with self._asking:
                if not self._current(name):  # nobody asked while we waited to
                    stale = self._origins.get(name)
                    await self._share({name: stale.use(wants=True) if stale else OriginUse()})
        origin.used = time.monotonic()
        return origin

    def _current(self, name: str) -> Origin | None:
        origin = self._origins.get(name)
        return origin if origin and not origin.needs_asking(time.monotonic()) else None

    async def keep_sharing(self) -> None:
        """Tell the other replicas about our origins again and again, until cancelled."""
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            with contextlib.suppress(ServiceError):  # then shares lapse, and images ask
                await self._share_all()

    async def _share_all(self) -> None:
        async with self._asking:
            now = time.monotonic()
            uses: dict[str, OriginUse] = {}
            for name, origin in list(self._origins.items()):
                inside = self._limits.inside(name)
                origin.forget_idle(inside, now)
                if inside or not origin.is_unused(now):
                    # After a rest, the first image that comes asks whether it may try.
                    uses[name] = origin.use(wants=not origin.standing.rest_s)
                elif not origin.rest_left_s(now):
                    del self._origins[name]
                    uses[name] = OriginUse(open=None, worked=origin.worked)
            names = list(uses)
            for at in range(0, len(names), _BATCH):
                await self._share({name: uses[name] for name in names[at : at + _BATCH]})

    async def _share(self, uses: dict[str, OriginUse]) -> None:
        """Tell how origins are used, and note how they stand."""
        now = time.monotonic()  # before: a share must not be used for longer than it is held
        for name, standing in (await self._shared.share(uses)).items():
            use = uses[name]
            if use.open is not None and (use.wants or standing.rest_s):
                self._note(name, standing, now)

    async def blame(self, name: str, failure: OriginFailure) -> tuple[OriginStanding, bool]:
        """Tell that an origin failed.

        Returns:
            How it stands now, and whether a rest begins with this failure.

        Raises:
            ServiceError: nobody can be told; the next failure may.
        """
        async with self._asking:  # an answer on its way would end the rest that begins
            standing, begins = await self._shared.blame(name, failure)
            if origin := self._origins.get(name):
                origin.worked = False
            if standing.rest_s:
                self._note(name, standing, time.monotonic())
        return standing, begins

    def _note(self, name: str, standing: OriginStanding, now: float) -> None:
        origin = self._origins.setdefault(name, Origin(standing, now, now, now))
        origin.standing, origin.asked = standing, now
        origin.worked = False
