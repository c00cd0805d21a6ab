"""One origin as this replica sees it: how it stands, who waits for it, what is open to it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from imgsvc.domain.origins import SHARE_S, OriginStanding, OriginUse
from imgsvc.outbound.session import KEEP_ALIVE_S

QUICK_S = 0.5
"""A connection that becomes free within this time is worth waiting for."""

_IDLE_S = 2 * KEEP_ALIVE_S + 1  # after this no connection is open


@dataclass(slots=True)
class Origin:
    """An origin, and how this replica uses it.

    Attributes:
        standing: what the replicas agreed upon.
        asked: when that was asked for.
        used: when somebody last came or went.
        freed: when somebody last went, or else when the origin was first heard of.
        opened: connections that may be open, idle ones included.
        worked: something was fetched since that was last told.
    """

    standing: OriginStanding
    asked: float
    used: float
    freed: float
    opened: int = 0
    worked: bool = False
    _busiest: int = 0  # how many were inside at once ...
    _since: float = 0.0  # ... from then on ...
    _needed: int = 0  # ... and before
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def needs_asking(self, now: float) -> bool:
        """Whether its standing is too old to act on."""
        rest_s = self.standing.rest_s
        return now - self.asked >= (rest_s or SHARE_S)

    def rest_left_s(self, now: float) -> float:
        """For how long it is still to be left alone."""
        rest_s = self.standing.rest_s
        return max(0.0, self.asked + rest_s - now) if rest_s else 0.0

    def entered(self, inside: int) -> bool:
        """Note that somebody came; returns whether to close the connection after use.

        That is so for a connection beyond our share, but also for one that is rarely needed: idle
        ones are used in turn, so that a trickle of visits would keep all of them open.

        Args:
            inside: how many are with the origin now.
        """
        self.opened = max(self.opened, inside)
        self._busiest = max(self._busiest, inside)
        return self.opened > min(self.standing.connections, self._recently_needed)

    @property
    def _recently_needed(self) -> int:
        """How many were inside at once of late."""
        return max(self._needed, self._busiest)

    def left(self, inside: int, now: float, *, closed: bool) -> None:
        """Note that somebody went, and call the next one who waits.

        Args:
            inside: how many are with the origin still.
            now: the time.
            closed: whether the connection was closed.
        """
        self.used = self.freed = now
        if closed:
            self.opened = max(self.opened - 1, inside)
        while self._waiting:
            called = self._waiting.popleft()
            if not called.done():
                called.set_result(None)
                break

    def is_worth_waiting_for(self, now: float) -> bool:
        """Whether a connection should be free soon, and few wait for it.

        Whoever waits for a slow origin would keep out images of others.
        """
        return now - self.freed <= QUICK_S and len(self._waiting) < self.standing.connections

    async def wait(self, limit_s: float) -> None:
        """Wait until somebody has left and it is our turn, or the time is up."""
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(called)
        try:
            await asyncio.wait((called,), timeout=limit_s)
        finally:
            if not called.done():
                self._waiting.remove(called)

    def forget_idle(self, inside: int, now: float) -> None:
        """Count connections as closed that nobody needed for some time."""
        if now - self._since > _IDLE_S:
            self.opened = min(self.opened, self._recently_needed)
            self._needed, self._busiest, self._since = self._busiest, inside, now

    def is_unused(self, now: float) -> bool:
        """Whether it has been idle for so long that no connection is open."""
        return now - self.used > _IDLE_S

    def note_success(self) -> None:
        """Note that it worked; during a rest that proves nothing, for it was under way before."""
        self.worked = not self.standing.rest_s

    def use(self, *, wants: bool) -> OriginUse:
        """What to tell the other replicas.

        Args:
            wants: whether this replica wants a share of the connections.
        """
        return OriginUse(open=self.opened, worked=self.worked, wants=wants)
