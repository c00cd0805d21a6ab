"""A stage for two replicas: one that is to die at a failpoint, and one that goes on."""

from __future__ import annotations

import contextlib
import signal
from types import TracebackType
from typing import Any, Self

from imgsvc.mailboxes.keys import DEALING, ERASING
from tests.chaos.album import Picture
from tests.chaos.invariants import check
from tests.chaos.replicas import Replica, operate
from tests.chaos.stack import Stack, post
from tests.chaos.world import Gate, Posted, Witness
from tests.support import wait_until

DIES_S = 40.0  # on a busy machine, too


class Scene:
    """One case: what a scenario acts with.

    Args:
        stack: shared by both.
        bystander: the replica that is to finish what the victim leaves behind; ready.
        failpoint: where the victim is to die.
    """

    def __init__(self, stack: Stack, bystander: Replica, failpoint: str) -> None:
        self.stack = stack
        self.bystander = bystander
        self.failpoint = failpoint
        self.receiver = Witness()
        self.posted: list[Posted] = []
        self.wrong: list[str] = []  # answers to clients
        self.exit_code: int | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.receiver)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bystander.paused:
            self.bystander.resume()
        await self._stack.aclose()

    def upload(self, *products: list[Picture], webhook: bool = True, **more: Any) -> Posted:
        """An upload that is to be made, and judged in the end."""
        made = self.stack.new_post(list(products), self.receiver if webhook else None, **more)
        self.posted.append(made)
        return made

    def hold(self, posted: Posted, product: int = 0, index: int = 0) -> Gate:
        """Keep an image from being fetched until the gate is opened, at the end at the latest."""
        gate = self.stack.origin.hold(posted.name(product, index))
        self._stack.callback(gate.open)
        return gate

    async def bystander_pauses(self) -> None:
        """Have it hold what it holds and do nothing, cut off from what comes.

        It stops as a leader, too: its leads last 5 s and more, and waiting that out would show
        nothing.
        """
        self.bystander.pause()
        for client in await self.stack.redis.client_list():
            if client["name"] == f"imgsvc-reader:{self.bystander.id}":
                await self.stack.redis.client_kill_filter(_id=client["id"])
        await self.stack.redis.delete(DEALING, ERASING)

    async def bystander_goes_on(self) -> None:
        """Let it find out what happened meanwhile."""
        await self.stack.redis.delete(DEALING, ERASING)
        self.bystander.resume()

    async def victim_starts(self, **settings: str) -> Replica:
        """A replica that is to die at the failpoint; ready, or dead already."""
        victim = self.stack.start("victim", armed=self.failpoint, **settings)
        self._stack.push_async_callback(victim.kill)
        await victim.ready()
        return victim

    async def dies(self, victim: Replica) -> None:
        """Wait until the failpoint has killed it."""
        self.exit_code = await victim.ended(DIES_S)

    async def dies_at_work(self, *uploads: Posted, **settings: str) -> None:
        """Have a victim work alone on uploads made to it until it dies; the other finishes."""
        await self.bystander_pauses()
        victim = await self.victim_starts(**settings)
        for each in uploads:
            await post(victim, each)
        await self.dies(victim)
        await self.bystander_goes_on()

    async def operator_dies(self, *command: str) -> None:
        """Run a command that is to die at the failpoint."""
        armed = {**self.stack.environment, "IMGSVC_DEV__FAILPOINT": self.failpoint}
        self.exit_code, told = await operate(armed, self.stack.folder, *command)
        assert self.exit_code == -signal.SIGKILL, told

    async def finished(self, posted: Posted) -> None:
        """Wait until a request has ended and its webhook as well, by the bystander's word."""

        async def ended() -> bool:
            _, found = await self.bystander.call("GET", f"/status/{posted.accepted}")
            told = not found["webhook"] or found["webhook"]["status"] != "PENDING"
            return found["status"] not in {"PENDING", "PROCESSING"} and told

        await wait_until(ended, f"{posted.tag} ended")

    async def violations(self) -> list[str]:
        """What is wrong in the end, when the client has repeated what it got no answer to."""
        died = self.exit_code == -signal.SIGKILL
        for each in self.posted:
            if not each.accepted:
                await wait_until(lambda each=each: post(self.bystander, each), "accepted")
        found = self.wrong + await check(self.stack, self.posted)
        return found if died else [f"it did not die there, it exited {self.exit_code}", *found]
