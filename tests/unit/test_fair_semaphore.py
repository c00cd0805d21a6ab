"""A fair semaphore: tenants have shares and take turns, and no capacity is lost or given twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from imgsvc.runtime.fair_semaphore import FairSemaphore


class Visits:
    """Who came in, in which order; each stays until told to go."""

    def __init__(self, capacity: int, share: int) -> None:
        self.semaphore = FairSemaphore(capacity, share)
        self.came: list[str] = []
        self.inside: Counter[str] = Counter()
        self._tasks: list[tuple[str, asyncio.Event, asyncio.Task[None]]] = []

    async def come(self, *tenants: str) -> None:
        """Some come, and wait if they have to."""
        for tenant in tenants:
            go = asyncio.Event()
            self._tasks.append((tenant, go, asyncio.create_task(self._visit(tenant, go))))
        await self._settled()

    async def _visit(self, tenant: str, go: asyncio.Event) -> None:
        async with self.semaphore.hold(tenant):
            self.came.append(tenant)
            self.inside[tenant] += 1
            try:
                await go.wait()
            finally:
                self.inside[tenant] -= 1

    async def go(self, index: int, *, cancelled: bool = False) -> None:
        """Have one of those who came go, or be cancelled, wherever that one is."""
        _, go, task = self._tasks[index]
        if cancelled:
            task.cancel()
        go.set()
        await self._settled()

    async def end(self) -> None:
        """All go; afterwards nothing may be left."""
        for _, go, _ in self._tasks:
            go.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*(task for *_, task in self._tasks), return_exceptions=True)
        assert not self.semaphore._waiting
        assert not self.semaphore._inside

    async def _settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_one_tenant_has_its_share_and_leaves_the_rest() -> None:
    visits = Visits(capacity=4, share=3)
    await visits.come("a", "a", "a", "a", "b", "b")
    assert visits.inside == {"a": 3, "b": 1}
    await visits.go(0)
    assert visits.inside == {"a": 2, "b": 2}, "a has had three turns, b one"
    await visits.end()


async def test_tenants_who_wait_have_turns() -> None:
    visits = Visits(capacity=1, share=1)
    await visits.come("a", "a", "a", "b", "b", "c")
    for index in (0, 1, 3, 5, 2):
        await visits.go(index)
    assert visits.came == ["a", "a", "b", "c", "a", "b"]
    await visits.end()


async def test_a_task_that_is_cancelled_while_it_waits_holds_nothing() -> None:
    visits = Visits(capacity=1, share=1)
    await visits.come("a", "a", "b")
    await visits.go(1, cancelled=True)
    await visits.go(0)
    assert visits.came == ["a", "b"]
    await visits.end()


async def test_an_admission_that_comes_with_a_cancellation_is_given_back() -> None:
    visits = Visits(capacity=1, share=1)
    await visits.come("a", "b", "c")
    (_, go, _), (_, _, second) = visits._tasks[0], visits._tasks[1]
    go.set()
    second.cancel()
    await visits._settled()
    assert visits.inside["c"] == 1
    await visits.end()


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), max_size=25),
)
def test_the_capacity_is_never_exceeded_nor_left_unused(
    capacity: int, share: int, steps: list[tuple[str, int, bool]]
) -> None:
    async def play() -> None:
        visits = Visits(capacity, share)
        for tenant, index, cancelled in steps:
            await visits.come(tenant)
            if index < len(visits._tasks):
                await visits.go(index, cancelled=cancelled)
            assert visits.inside.total() <= capacity
            assert all(count <= share for count in visits.inside.values())
            if visits.inside.total() < capacity:
                waiting = visits.semaphore._waiting
                assert all(visits.inside[each] == share for each in waiting)
        await visits.end()

    asyncio.run(play())
