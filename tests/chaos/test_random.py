"""Everything fails once, in random order, while three replicas work; then nothing is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from imgsvc.embedded.servers import EmbeddedServers
from tests.chaos.faults import FAULTS
from tests.chaos.killer import run, show
from tests.redis_servers import PROGRAMS

pytestmark = pytest.mark.long

SEED = 20261123


@pytest.mark.timeout(600)
@pytest.mark.parametrize("own_servers", PROGRAMS, indirect=True, scope="module")
@pytest.mark.asyncio(loop_scope="module")
async def test_after_any_fault_all_accepted_work_is_done_once(
    own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    console = Console(highlight=False, width=110)
    outcome = await run(own_servers, tmp_path, SEED, seconds=0, pause_s=0.8, console=console)
    show(outcome, console)
    assert outcome.violations == []
    assert {one.name for one in outcome.struck} == set(FAULTS)
    assert outcome.images >= 300
