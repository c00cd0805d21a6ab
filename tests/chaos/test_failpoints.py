"""A replica dies before and after each of its side effects, and nothing is lost or done twice.

The cases run side by side in lanes, each a service of its own with one replica that stays.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

import imgsvc
from imgsvc.embedded.servers import EmbeddedServers
from tests.chaos.replicas import Replica
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.scene import Scene
from tests.chaos.stack import Stack, service

LANES = 4
CASE_S = 100.0


@dataclass(frozen=True)
class Case:
    """One place to die at, and how to get there."""

    failpoint: str
    side: str
    scenario: Scenario

    def __str__(self) -> str:
        return f"{self.side} {self.failpoint} with {self.scenario.__name__}"


CASES = [
    Case(failpoint, side, scenario)
    for scenario, failpoints in SCENARIOS.items()
    for failpoint in failpoints
    for side in ("before", "after")
]


def failpoints_in_source() -> set[str]:
    """Every name that the service passes to ``Failpoints.around``."""
    folder = Path(imgsvc.__file__).parent
    text = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    named = set(re.findall(r'\.around\(\s*"([\w.]+)"', text))
    written = set(re.findall(r'\._store\.(?:write|update_all)\(\s*"(\w+)"', text))
    written |= set(re.findall(r'\.finish_group\(\s*"(\w+)"', text))
    scripts = {path.stem for path in (folder / "mailboxes/lua").glob("*.lua")}
    return named | {f"ledger.{name}" for name in written} | {f"redis.{name}" for name in scripts}


def test_every_failpoint_is_walked_and_every_side_effect_has_one() -> None:
    assert {case.failpoint for case in CASES} == failpoints_in_source()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(
    request: pytest.FixtureRequest,
    own_servers: EmbeddedServers,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[dict[Case, asyncio.Future[list[str]]]]:
    """What becomes of each case that is to be run; they begin at once."""
    loop = asyncio.get_running_loop()
    chosen = [
        item.callspec.params["case"]
        for item in request.session.items
        if item.module is request.module and hasattr(item, "callspec")
    ]
    found = {case: loop.create_future() for case in chosen}
    waiting = iter(chosen)
    folder = tmp_path_factory.mktemp("lanes")
    lanes = [
        asyncio.create_task(run_lane(own_servers, number, folder, waiting, found))
        for number in range(min(LANES, len(chosen)))
    ]

    def fail_the_rest(lane: asyncio.Task[None]) -> None:
        if not lane.cancelled() and (error := lane.exception()):
            for outcome in found.values():
                if not outcome.done():
                    outcome.set_exception(error)

    for lane in lanes:
        lane.add_done_callback(fail_the_rest)
    yield found
    for lane in lanes:
        lane.cancel()
    await asyncio.gather(*lanes, return_exceptions=True)


async def run_lane(
    servers: EmbeddedServers,
    number: int,
    folder: Path,
    waiting: Iterator[Case],
    found: dict[Case, asyncio.Future[list[str]]],
) -> None:
    """Run cases that wait, one after the other, with a new lane after one that goes wrong."""
    for renewal in range(len(found)):
        async with service(servers, f"lane-{number}-{renewal}", number, folder) as stack:
            await stack.redis.flushdb()
            stays = stack.start("stays")
            await stays.ready()
            for case in waiting:
                try:
                    violations = await play(stack, stays, case)
                except Exception as error:  # noqa: BLE001 - told by the test of the case
                    found[case].set_exception(error)
                    break
                found[case].set_result(violations)
                if violations:
                    break
            else:
                return


async def play(stack: Stack, stays: Replica, case: Case) -> list[str]:
    """Run one case; what is wrong in the end."""
    async with (
        asyncio.timeout(CASE_S),
        Scene(stack, stays, f"{case.failpoint}:{case.side}") as scene,
    ):
        await case.scenario(scene)
        return await scene.violations()


@pytest.mark.long
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_replica_dies_there_and_the_work_is_done_once(
    case: Case, outcomes: dict[Case, asyncio.Future[list[str]]]
) -> None:
    assert await outcomes[case] == []
