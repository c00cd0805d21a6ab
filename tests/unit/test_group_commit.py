"""Group commit: few writes for many items, and everyone hears what became of theirs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from imgsvc.runtime.group_commit import GroupCommit
from imgsvc.runtime.priority import PRIORITY


class Store:
    """Writes numbers, when it is let; answers with their doubles."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.error: Exception | None = None
        self.writing = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        self.writing.set()
        await self.open.wait()
        if self.error:
            raise self.error
        return [item * 2 for item in items]


@pytest.fixture
async def store() -> Store:
    return Store()


def submitted(commit: GroupCommit[int, int], *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(commit.submit(item)) for item in items]


async def until_writing(store: Store) -> None:
    async with asyncio.timeout(5):
        await store.writing.wait()


async def test_an_idle_group_writes_at_once(store: Store) -> None:
    commit = GroupCommit(store.write, 10)
    assert await commit.submit(1) == 2
    assert await commit.submit(2) == 4
    assert store.groups == [[1], [2]]


async def test_what_arrives_during_a_write_goes_out_together_in_order(store: Store) -> None:
    commit = GroupCommit(store.write, 10)
    store.open.clear()
    first = submitted(commit, 1)
    await until_writing(store)
    rest = submitted(commit, 2, 3, 4)
    await asyncio.sleep(0)
    assert not any(task.done() for task in first + rest), "nobody hears of success too early"
    store.open.set()
    assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8]
    assert store.groups == [[1], [2, 3, 4]]


async def test_a_group_is_bounded(store: Store) -> None:
    commit = GroupCommit(store.write, 4)
    answers = await asyncio.gather(*submitted(commit, *range(10)))
    assert answers == [item * 2 for item in range(10)]
    assert [len(group) for group in store.groups] == [4, 4, 2]


async def test_an_error_reaches_all_of_its_group_and_nobody_else(store: Store) -> None:
    commit = GroupCommit(store.write, 3)
    store.error = ConnectionError("away")
    store.open.clear()
    group = submitted(commit, 1, 2, 3)
    await until_writing(store)
    store.open.set()
    answers = await asyncio.gather(*group, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError] * 3
    store.error = None
    assert await commit.submit(4) == 8


async def test_a_caller_that_goes_away_hurts_nobody(store: Store) -> None:
    commit = GroupCommit(store.write, 10)
    store.open.clear()
    written, waiting = submitted(commit, 1), submitted(commit, 2, 3, 4)
    await until_writing(store)
    for task in (written[0], waiting[1]):
        task.cancel()
    store.open.set()
    answers = await asyncio.gather(*written, *waiting, return_exceptions=True)
    assert [type(a) for a in answers] == [asyncio.CancelledError, int, asyncio.CancelledError, int]
    assert sorted(item for group in store.groups for item in group) == [1, 2, 3, 4], (
        "theirs are written all the same"
    )


async def test_the_first_caller_may_go_away_before_anything_is_written(store: Store) -> None:
    commit = GroupCommit(store.write, 1)
    store.open.clear()
    first, second = submitted(commit, 1, 2)
    await until_writing(store)
    first.cancel()
    store.open.set()
    assert await second == 4


async def test_groups_gather_until_their_turn(store: Store) -> None:
    commit = GroupCommit(store.write, 10, every_s=0.05)
    began = asyncio.get_running_loop().time()
    assert await commit.submit(1) == 2
    assert asyncio.get_running_loop().time() - began < 0.05, "a quiet group does not wait"
    first = submitted(commit, 2)
    await asyncio.sleep(0.01)
    assert await asyncio.gather(*first, *submitted(commit, 3)) == [4, 6]
    assert asyncio.get_running_loop().time() - began >= 0.05
    assert store.groups == [[1], [2, 3]]


async def test_nobody_is_waited_for_who_is_not_expected(store: Store) -> None:
    expected = True
    commit = GroupCommit(store.write, 10, every_s=60, expecting=lambda: expected)
    await commit.submit(1)
    waiting = submitted(commit, 2, 3)
    await asyncio.sleep(0.1)
    assert store.groups == [[1]]
    expected = False
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [4, 6]
    assert store.groups == [[1], [2, 3]]


async def test_who_has_priority_waits_neither_for_the_others_write_nor_for_their_turn(
    store: Store,
) -> None:
    commit = GroupCommit(store.write, 10, every_s=60)
    store.open.clear()
    others = submitted(commit, 1, 2)
    await until_writing(store)
    others += submitted(commit, 3)
    await asyncio.sleep(0)
    PRIORITY.set(True)
    first, *rest = submitted(commit, 4, 5, 6)
    await asyncio.sleep(0.01)
    assert store.groups == [[1, 2], [4, 5, 6]]
    store.open.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(first, *rest) == [8, 10, 12]
        assert await commit.submit(7) == 14
    assert not others[2].done()
    for task in others:
        task.cancel()


async def test_a_write_that_fails_when_nobody_waits_any_more_is_no_news(store: Store) -> None:
    """As when the process leaves: those who asked were cancelled, then connections are closed."""
    told: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    commit = GroupCommit(store.write, 10)
    store.open.clear()
    store.error = ConnectionError("closed")
    asked = submitted(commit, 1, 2)
    await until_writing(store)
    (stays,) = submitted(commit, 3)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    store.open.set()
    with pytest.raises(ConnectionError):
        await stays
    del asked, stays, task
    gc.collect()
    assert told == []
