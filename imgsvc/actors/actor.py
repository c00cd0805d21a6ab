"""An actor: one behaviour that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeGuard

from imgsvc.actors.parts import Parts
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime import logs, redaction

# Waits between tries while something the work needs is away; the last one is repeated.
AWAY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_REMIND_EVERY = 12  # tries, about a minute: how often to log what an operator has to mend


class Actor(ABC):
    """One behaviour that runs until it is told to stop.

    The supervisor calls ``run``. If that raises, it makes a new actor and runs that.
    """

    name: ClassVar[str]

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.log = logs.get(self.name)
        self.stopping = asyncio.Event()

    @abstractmethod
    async def run(self) -> None:
        """Work until ``stop`` was called and the work in hand is finished."""

    def stop(self) -> None:
        """Take nothing new."""
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but not longer than until ``stop``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    async def repeat(self, step: Callable[[], Awaitable[float]]) -> None:
        """Repeat a step until ``stop``. While something that it needs is away, try it again.

        Args:
            step: returns the seconds to pause before the next one.
        """
        tries = 0
        while not self.stopping.is_set():
            try:
                pause_s = await step()
            except ServiceError as error:
                tries += 1
                await self.wait_out(error, tries)
            else:
                tries = 0
                if pause_s:
                    await self.pause(pause_s)

    async def wait_out(self, error: ServiceError, tries: int) -> None:
        """Wait before another try, because something that the work needs is away.

        Args:
            error: what was raised.
            tries: how many in a row failed like this.

        Raises:
            ServiceError: the error, if nothing is away.
        """
        if not is_away(error):
            raise error
        if error.remedy and tries % _REMIND_EVERY == 1:
            self.log.error("dependency.refuses", reason=error.detail, remedy=error.remedy)
        elif tries == 1:
            self.log.warning(
                "dependency.away", reason=error.detail, cause=redaction.of_error(error.__cause__)
            )
        await self.back_off(tries)

    async def back_off(self, tries: int) -> None:
        """Wait before another try; longer, the more failed in a row."""
        wait = AWAY_S[min(tries, len(AWAY_S)) - 1]
        await self.pause(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads replicas


def is_away(error: Exception) -> TypeGuard[ServiceError]:
    """Whether an error says that something is away, and may come back."""
    return isinstance(error, ServiceError) and error.code is ErrorCode.UNAVAILABLE
