"""The chaos tests have servers of their own, for they kill them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from imgsvc.embedded.servers import EmbeddedServers
from tests.conftest import children
from tests.redis_servers import redis_server


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each file: no process is left. What else must not be, the invariants say."""
    before = children()
    yield
    deadline = time.monotonic() + 5
    while (left := children() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedServers]:
    """Redis, MongoDB and a bucket for one file of tests; the Redis that the file wants, or SERVER."""
    kind = getattr(request, "param", os.environ.get("SERVER", "valkey"))
    folder: Path = tmp_path_factory.mktemp("servers")
    async with EmbeddedServers(
        folder, mongo_standalone=True, redis_server=redis_server(kind)
    ) as servers:
        yield servers
