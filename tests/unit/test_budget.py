"""A budget is never exceeded, and who asks for much gets its turn."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from imgsvc.imaging.budget import Budget


@given(amounts=st.lists(st.integers(1, 150), min_size=1, max_size=30), seed=st.integers(0, 2**16))
def test_the_total_is_never_exceeded_and_everyone_gets_a_turn(
    amounts: list[int], seed: int
) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        budget = Budget(100)
        in_use = served = 0

        async def use(amount: int) -> None:
            nonlocal in_use, served
            async with budget.reserve(amount):
                in_use += min(amount, 100)
                try:
                    assert in_use <= 100
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                    served += 1
                finally:
                    in_use -= min(amount, 100)

        tasks = [asyncio.create_task(use(amount)) for amount in amounts]
        cancelled = [task for task in tasks if chance.random() < 0.2]
        await asyncio.sleep(0)
        for task in cancelled:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        async with asyncio.timeout(1), budget.reserve(100):
            pass  # all of it came back
        assert served >= len(tasks) - len(cancelled)

    asyncio.run(run())


async def test_a_large_request_is_not_overtaken() -> None:
    budget = Budget(10)
    order: list[str] = []

    async def use(name: str, amount: int) -> None:
        async with budget.reserve(amount):
            order.append(name)
            await asyncio.sleep(0)

    names = [("small", 5), ("large", 10), ("late", 1)]
    await asyncio.gather(*(use(name, amount) for name, amount in names))
    assert order == ["small", "large", "late"]
