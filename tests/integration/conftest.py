"""Ledgers for tests: of one replica, of another, of one behind a bad network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.ledger import Ledger
from imgsvc.runtime.settings import Mongo, Settings
from tests.integration.ledgers import new_request
from tests.integration.proxy import Proxy, between


@pytest.fixture
def mongo(make_settings: Callable[..., Settings]) -> Mongo:
    return make_settings(mongo={"timeout_ms": 500}).mongo


@pytest.fixture
async def connect(mongo: Mongo) -> AsyncIterator[Callable[[], Ledger]]:
    """Makes ledgers on one database, each with connections of its own, as replicas have."""
    with contextlib.ExitStack() as stack:

        def make() -> Ledger:
            made = Ledger(mongo)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
async def ledger(connect: Callable[[], Ledger]) -> Ledger:
    made = connect()
    await made.prepare()
    return made


async def _bad_network(
    mongo: Mongo, servers: EmbeddedServers
) -> AsyncIterator[tuple[Proxy, Ledger]]:
    """A ledger of another replica, and the network between it and MongoDB."""
    async with between(servers.mongo.port) as proxy:
        uri = SecretStr(f"mongodb://127.0.0.1:{proxy.port}/")
        made = Ledger(mongo.model_copy(update={"uri": uri}))
        await made.check()
        yield proxy, made
        await asyncio.to_thread(made.close)  # it waits for answers that pass through here


bad_network = pytest.fixture(_bad_network, name="bad_network")
another_bad_network = pytest.fixture(_bad_network, name="another_bad_network")


@pytest.fixture
async def stored(mongo: Mongo) -> AsyncIterator[Any]:
    """The database as another client sees it."""
    async with AsyncMongoClient(mongo.uri.get_secret_value()) as client:
        yield client[mongo.database]


@pytest.fixture
async def started(ledger: Ledger) -> Callable[..., Awaitable[str]]:
    """Inserts a request and starts it; returns its id."""

    async def start(*images: int, **more: Any) -> str:
        new = new_request(*images, **more)
        await ledger.uploads.accept(new)
        await ledger.backlog.start([new.id])
        return new.id

    return start
