"""Clock: brings back what was put aside, when it is due."""

from __future__ import annotations

from typing import ClassVar

from imgsvc.actors.actor import Actor
from imgsvc.domain.errors import ServiceError
from imgsvc.mailboxes.keys import FETCH, NOTIFY

_TICK_S = 0.25


class Clock(Actor):
    """Moves due messages to their mailboxes; Redis' own clock says what is due."""

    name: ClassVar[str] = "clock"

    async def run(self) -> None:
        """Tick until stopped."""
        away = 0
        while not self.stopping.is_set():
            wait_s = _TICK_S
            try:
                for mailbox in (FETCH, NOTIFY):
                    next_s = await self.parts.mailboxes.delayed.promote(mailbox)
                    wait_s = wait_s if next_s is None else min(wait_s, next_s)
            except ServiceError as error:
                away += 1
                await self.wait_out(error, away)
                continue
            away = 0
            await self.pause(wait_s)
