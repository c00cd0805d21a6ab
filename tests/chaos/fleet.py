"""Three replicas, brought back when they are killed."""

from __future__ import annotations

import asyncio
import random
import signal

from tests.chaos.replicas import Replica
from tests.chaos.stack import Stack
from tests.support import wait_until

SIZE = 3


class Fleet:
    """The replicas of a service, as an orchestrator keeps them.

    Args:
        stack: whose replicas.
        rng: chooses among them.
    """

    def __init__(self, stack: Stack, rng: random.Random) -> None:
        self.stack = stack
        self._rng = rng
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bring all up."""
        await asyncio.gather(*(self._start(0) for _ in range(SIZE)))

    async def _start(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        replica = self.stack.start()
        if not await replica.ready():
            # To be killed while starting is a fault like any other; to give up is not.
            code = replica.process.returncode
            assert code == -signal.SIGKILL, f"ended with {code}: {replica.log}"

    def start_later(self, after_s: float) -> None:
        """Have one more replica started after a while."""
        task = asyncio.create_task(self._start(after_s))
        self._starting.add(task)

    async def victim(self) -> Replica:
        """One of those at work, which are two at least."""

        async def choices() -> list[Replica]:
            at_work = [one for one in self.stack.replicas if one.at_work]
            return at_work if len(at_work) > 1 else []

        return self._rng.choice(await wait_until(choices, "two replicas are at work"))

    def anyone(self) -> Replica | None:
        """One that runs, as a load balancer without health checks finds it."""
        choices = [one for one in self.stack.replicas if one.running]
        return self._rng.choice(choices) if choices else None

    async def complete(self) -> None:
        """Wait until all are ready again."""
        await asyncio.gather(*self._starting)
        for replica in self.stack.replicas:
            if replica.running:
                assert await replica.ready(), f"{replica.name} ended"
