"""Clock: brings back what was put aside, when it is due."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.actor import Actor
from imgsvc.mailboxes.keys import FETCH, NOTIFY

_TICK_S = 0.25


class Clock(Actor):
    """Moves due messages to their mailboxes; Redis' own clock says what is due."""

    name: ClassVar[str] = "clock"

    async def run(self) -> None:
        """Tick until stopped."""
        await self.repeat(self._tick)

    async def _tick(self) -> float:
        """Move what is due; returns the seconds until the next may be."""
        wait_s = _TICK_S
        for mailbox in (FETCH, NOTIFY):
            next_s = await self.parts.mailboxes.delayed.promote(mailbox)
            wait_s = wait_s if next_s is None else min(wait_s, next_s)
        return wait_s
