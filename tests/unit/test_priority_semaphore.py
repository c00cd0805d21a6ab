"""A priority semaphore: the capacity is never exceeded, and everyone gets a turn."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.runtime.priority_semaphore import PrioritySemaphore


@pytest.mark.parametrize(("capacity", "heaviest"), [(3, 1), (100, 150)])
@given(
    tasks=st.lists(st.tuples(st.integers(1, 150), st.booleans()), min_size=1, max_size=30),
    seed=st.integers(0, 2**16),
)
def test_the_capacity_is_never_exceeded_and_everyone_gets_a_turn(
    capacity: int, heaviest: int, tasks: list[tuple[int, bool]], seed: int
) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        semaphore = PrioritySemaphore(capacity)
        in_use = served = 0

        async def use(weight: int, *, priority: bool) -> None:
            nonlocal in_use, served
            async with semaphore.hold(weight, priority=priority):
                in_use += min(weight, capacity)
                try:
                    assert in_use <= capacity
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                    served += 1
                finally:
                    in_use -= min(weight, capacity)

        running = [
            asyncio.create_task(use(min(weight, heaviest), priority=priority))
            for weight, priority in tasks
        ]
        cancelled = [task for task in running if chance.random() < 0.2]
        await asyncio.sleep(0)
        for task in cancelled:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 5)
        async with asyncio.timeout(1), semaphore.hold(capacity):
            pass  # all of it came back
        assert served >= len(running) - len(cancelled)

    asyncio.run(run())


async def order_of(semaphore: PrioritySemaphore, *names: str, **weights: int) -> list[str]:
    """The order in which tasks are admitted; those with a capital initial have priority."""
    order: list[str] = []

    async def use(name: str) -> None:
        async with semaphore.hold(weights.get(name, 1), priority=name[0].isupper()):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(*map(use, names))
    return order


async def test_a_heavy_task_is_not_overtaken() -> None:
    order = await order_of(PrioritySemaphore(10), "small", "large", "late", small=5, large=10)
    assert order == ["small", "large", "late"]


async def test_a_heavy_task_is_overtaken_by_priority_three_times_at_most() -> None:
    order = await order_of(PrioritySemaphore(10), "first", "large", *"ABCDE", first=10, large=10)
    assert order == ["first", *"ABC", "large", *"DE"]


async def test_priority_goes_first_and_the_others_in_order_of_arrival() -> None:
    semaphore = PrioritySemaphore(1)
    order = await order_of(semaphore, "first", "second", "third", "Urgent", "Late")
    assert order == ["first", "Urgent", "Late", "second", "third"]


async def test_however_many_have_priority_the_others_have_turns_too() -> None:
    order = await order_of(PrioritySemaphore(1), "first", "second", "third", *"ABCDEFGH")
    assert order == ["first", *"ABC", "second", *"DEF", "third", *"GH"]


async def test_tasks_wait_while_it_is_closed() -> None:
    is_open = False
    semaphore = PrioritySemaphore(1, lambda: is_open)
    waiting = asyncio.create_task(order_of(semaphore, "one", "two"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    is_open = True
    semaphore.admit()
    assert await asyncio.wait_for(waiting, 1) == ["one", "two"]


async def test_nobody_waits_once_it_is_lifted() -> None:
    semaphore = PrioritySemaphore(1, lambda: False)
    waiting = asyncio.create_task(order_of(semaphore, "one", "two"))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        semaphore.lift()
        async with semaphore.hold():
            assert await waiting == ["one", "two"]
            assert await order_of(semaphore, "three") == ["three"]
