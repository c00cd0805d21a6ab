"""Who has priority goes first, and everyone gets a turn."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from imgsvc.runtime.priority import PRIORITY, Turnstile


@given(priorities=st.lists(st.booleans(), min_size=1, max_size=30), seed=st.integers(0, 2**16))
def test_never_too_many_are_inside_and_everyone_gets_a_turn(
    priorities: list[bool], seed: int
) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        turnstile = Turnstile(lambda inside: inside < 3)
        inside = served = 0

        async def go(*, priority: bool) -> None:
            nonlocal inside, served
            PRIORITY.set(priority)
            async with turnstile.turn():
                inside += 1
                try:
                    assert inside <= 3
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                    served += 1
                finally:
                    inside -= 1

        tasks = [asyncio.create_task(go(priority=each)) for each in priorities]
        cancelled = [task for task in tasks if chance.random() < 0.2]
        await asyncio.sleep(0)
        for task in cancelled:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert turnstile.inside == 0
        assert served >= len(tasks) - len(cancelled)

    asyncio.run(run())


async def order_of(turnstile: Turnstile, *names: str) -> list[str]:
    """In which order tasks get in; those have priority whose names begin with a capital."""
    order: list[str] = []

    async def go(name: str) -> None:
        PRIORITY.set(name[0].isupper())
        async with turnstile.turn():
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(*map(go, names))
    return order


async def test_those_with_priority_go_first_and_the_others_as_they_came() -> None:
    turnstile = Turnstile(lambda inside: inside < 1)
    order = await order_of(turnstile, "first", "second", "third", "Urgent", "Late")
    assert order == ["first", "Urgent", "Late", "second", "third"]


async def test_however_many_have_priority_the_others_have_turns_too() -> None:
    turnstile = Turnstile(lambda inside: inside < 1)
    order = await order_of(turnstile, "first", "second", "third", *"ABCDEFGH")
    assert order == ["first", *"ABC", "second", *"DEF", "third", *"GH"]


async def test_who_waits_gets_in_when_there_is_more_room() -> None:
    room = 0
    turnstile = Turnstile(lambda inside: inside < room)
    waiting = asyncio.create_task(order_of(turnstile, "one", "two"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    room = 1
    turnstile.look()
    assert await asyncio.wait_for(waiting, 1) == ["one", "two"]
