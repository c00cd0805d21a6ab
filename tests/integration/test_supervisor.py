"""The supervisor: an actor that crashes is run again, later each time, and not for ever."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import ClassVar

import pytest

from imgsvc import app
from imgsvc.actors import Actor, Clock, Fetcher, Parts, Reaper, Supervisor, supervisor
from imgsvc.actors.supervisor import GaveUpError
from imgsvc.actors.verdicts import Verdict
from imgsvc.domain.messages import ImageJob
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.envelope import Facts
from imgsvc.mailboxes.keys import FETCH
from imgsvc.runtime.cancellation import cancel_and_wait
from imgsvc.runtime.settings import Settings
from tests.support import wait_until


@pytest.fixture
async def parts(make_settings: Callable[..., Settings]) -> AsyncIterator[Parts]:
    settings = make_settings()
    async with app.parts(settings) as made:
        yield made
    async with connect(settings.redis) as client:
        await client.flushdb()


class Recorded(Actor):
    """An actor that remembers when it was run, and crashes as often as it is told to."""

    crashes: ClassVar[int] = 0
    runs: ClassVar[list[float]]
    ended: ClassVar[list[str]]

    def __init_subclass__(cls) -> None:
        cls.runs, cls.ended = [], []

    async def run(self) -> None:
        self.runs.append(time.monotonic())
        if len(self.runs) <= self.crashes:
            raise RuntimeError(f"crash {len(self.runs)}")
        try:
            await self.stopping.wait()
            self.ended.append("stopped")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise


def crashing(times: int) -> type[Recorded]:
    class Crashing(Recorded):
        name = "crashing"
        crashes = times

    return Crashing


def steady() -> type[Recorded]:
    class Steady(Recorded):
        name = "steady"

    return Steady


def restarts(parts: Parts, name: str) -> float:
    return float(parts.metrics.actor_restarts.labels(name)._value.get())


async def has_run(kind: type[Recorded], times: int) -> None:
    async def enough() -> bool:
        return len(kind.runs) >= times

    await wait_until(enough, f"{kind.name} was run {times} times")


async def test_an_actor_that_crashes_is_run_again_later_each_time(parts: Parts) -> None:
    bad, good = crashing(3), steady()
    supervised = Supervisor(parts, [bad, good])
    running = asyncio.create_task(supervised.run())
    await has_run(bad, 4)
    waits = [later - earlier for earlier, later in pairwise(bad.runs)]
    assert [wait >= least for wait, least in zip(waits, (0.2, 0.4, 0.8), strict=True)] == [True] * 3
    assert restarts(parts, "crashing") == 3
    assert len(good.runs) == 1, "the others were left alone"
    await supervised.stop()
    await running
    assert (bad.ended, good.ended) == (["stopped"], ["stopped"])


async def test_an_actor_that_keeps_crashing_ends_all(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_WAITS_S", (0.01,) * supervisor._RESTARTS)
    bad, good = crashing(1000), steady()
    with pytest.raises(GaveUpError, match=r"crashing keeps crashing: .*crash 7"):
        await Supervisor(parts, [good, bad]).run()
    assert len(bad.runs) == supervisor._RESTARTS + 1
    assert good.ended == ["cancelled"]


async def test_crashes_long_ago_are_forgiven(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_WAITS_S", (0.01,) * supervisor._RESTARTS)
    monkeypatch.setattr(supervisor, "_WITHIN_S", 0.03)  # seven crashes take longer
    bad = crashing(20)
    supervised = Supervisor(parts, [bad])
    running = asyncio.create_task(supervised.run())
    await has_run(bad, 21)
    await supervised.stop()
    await running


async def test_actors_are_stopped_in_the_order_of_the_pipeline(parts: Parts) -> None:
    downstream, finished = steady(), asyncio.Event()

    class Upstream(Recorded):
        name = "upstream"

        async def run(self) -> None:
            await super().run()
            await finished.wait()  # what is in hand

    supervised = Supervisor(parts, [Upstream, downstream])
    running = asyncio.create_task(supervised.run())
    await has_run(downstream, 1)
    stopping = asyncio.create_task(supervised.stop())

    async def upstream_stops() -> bool:
        return bool(Upstream.ended)

    await wait_until(upstream_stops, "the first takes nothing new")
    # It may still pass something on: the second is not even told.
    await parts.mailboxes.readers.end_reads()
    assert not supervised._actors[downstream].stopping.is_set()
    finished.set()
    await stopping
    await running
    assert downstream.ended == ["stopped"]


async def test_stopping_does_not_wait_for_a_restart(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_WAITS_S", (60.0,) * supervisor._RESTARTS)
    bad = crashing(1)
    supervised = Supervisor(parts, [bad])
    running = asyncio.create_task(supervised.run())
    await has_run(bad, 1)
    try:
        async with asyncio.timeout(2):
            await supervised.stop()
            await running
    finally:
        running.cancel()
    assert len(bad.runs) == 1


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_when_cancelled_in_the_middle_of_any_command(
    parts: Parts, turns: int
) -> None:
    """Where a cancellation is lost, as in Python 3.11, another one follows."""
    running = asyncio.create_task(Supervisor(parts, [Reaper, Clock]).run())
    await asyncio.sleep(0.5)
    time.sleep(0.6)  # noqa: ASYNC251 - a machine so busy that now all send a command at once
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    try:
        done, _ = await asyncio.wait({running}, timeout=3)
        assert done
    finally:
        await cancel_and_wait(running)


async def test_what_is_in_hand_ends_even_if_a_cancellation_is_lost(parts: Parts) -> None:
    begun = asyncio.Event()

    class Deaf(Fetcher):
        async def handle(self, job: ImageJob, facts: Facts) -> Verdict:
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(60)
            return await super().handle(job, facts)

    await parts.mailboxes.prepare()
    await parts.mailboxes.streams.deal(
        FETCH, [ImageJob(request_id="r", product=0, index=0)], bounded=False
    )
    running = asyncio.create_task(Supervisor(parts, [Deaf]).run())
    await begun.wait()
    running.cancel()
    try:
        done, _ = await asyncio.wait({running}, timeout=3)
        assert done
    finally:
        await cancel_and_wait(running)
