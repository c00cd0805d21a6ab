"""Clock: brings delayed messages back when they are due."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.actor import Actor
from imgsvc.mailboxes.keys import FETCH, NOTIFY

_TICK_S = 0.25


class Clock(Actor):
    """Moves due messages to their mailboxes. The clock of Redis decides what is due."""

    name: ClassVar[str] = "clock"

    async def run(self) -> None:
        """Move messages until stopped."""
        await self.repeat(self._promote)

    async def _promote(self) -> float:
        """Move what is due; returns the seconds until more may be."""
        wait_s = _TICK_S
        for mailbox in (FETCH, NOTIFY):
            next_s = await self.parts.mailboxes.delayed.promote(mailbox)
            wait_s = wait_s if next_s is None else min(wait_s, next_s)
        return wait_s
