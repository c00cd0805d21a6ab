"""The ledger's schema goes from one version to the next, once, and never back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.ledger import Ledger
from imgsvc.ledger.schema import MIGRATIONS, Migration
from imgsvc.runtime.settings import Mongo, Settings, SettingsError
from tests.integration.test_mongo_errors import command, ended
from tests.support import Service, wait_until

NOW = len(MIGRATIONS) + 1


@pytest.fixture
def mongo(make_settings: Callable[..., Settings]) -> Mongo:
    return make_settings().mongo


@pytest.fixture
async def database(mongo: Mongo) -> AsyncIterator[Any]:
    """The database as another client sees it."""
    async with AsyncMongoClient[Any](mongo.uri.get_secret_value()) as client:
        yield client[mongo.database]


@contextlib.contextmanager
def release(mongo: Mongo, *more: Migration) -> Any:
    """The ledger of a replica whose code knows these migrations too."""
    with contextlib.closing(Ledger(mongo, migrations=(*MIGRATIONS, *more))) as ledger:
        yield ledger


def counted(name: str) -> Migration:
    """A migration that leaves a mark of each time it ran."""

    async def migrate(database: Any) -> None:
        await database["marks"].update_one({"_id": name}, {"$inc": {"runs": 1}}, upsert=True)

    return migrate


async def schema(database: Any) -> dict[str, Any]:
    """What is written of the version."""
    found: dict[str, Any] = await database["meta"].find_one({"_id": "schema"})
    return found


async def runs(database: Any) -> dict[str, int]:
    """How often each migration ran."""
    return {found["_id"]: found["runs"] async for found in database["marks"].find()}


async def prepared(ledgers: Sequence[Ledger]) -> None:
    """All of them, each trying again as the service does."""

    async def prepare(ledger: Ledger) -> None:
        async def done() -> bool:
            with contextlib.suppress(ServiceError):
                await ledger.prepare()
                return True
            return False

        await wait_until(done, "a ledger is prepared", 60)

    await asyncio.gather(*(prepare(ledger) for ledger in ledgers))


async def test_a_new_database_gets_the_version_of_the_code(mongo: Mongo, database: Any) -> None:
    with release(mongo) as ledger:
        await ledger.prepare()
        await ledger.prepare()
    assert await schema(database) == {"_id": "schema", "version": NOW}


async def test_one_without_a_version_is_brought_up_step_by_step(
    mongo: Mongo, database: Any
) -> None:
    await database["requests"].insert_one({"_id": "of the time before"})
    with release(mongo, counted("a"), counted("b")) as ledger:
        await ledger.prepare()
        await ledger.prepare()
    assert await schema(database) == {"_id": "schema", "version": NOW + 2}
    assert await runs(database) == {"a": 1, "b": 1}


async def test_replicas_that_start_at_once_take_each_step_once(mongo: Mongo, database: Any) -> None:
    async def slow(database: Any) -> None:
        await asyncio.sleep(0.3)
        await counted("slow")(database)

    with contextlib.ExitStack() as stack:
        made = release(mongo, counted("a"), slow), release(mongo, counted("a"), slow)
        await prepared([stack.enter_context(each) for each in made])
    assert await runs(database) == {"a": 1, "slow": 1}
    assert await schema(database) == {"_id": "schema", "version": NOW + 2}


async def test_who_comes_meanwhile_waits_and_says_for_what(mongo: Mongo, database: Any) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def long(_: Any) -> None:
        begun.set()
        await go_on.wait()

    with release(mongo, long) as one, release(mongo, long) as other:
        working = asyncio.create_task(one.prepare())
        await begun.wait()
        with pytest.raises(ServiceError) as caught:
            await other.prepare()
        assert caught.value.code is ErrorCode.UNAVAILABLE
        assert f"version {NOW + 1}" in caught.value.detail
        assert await database["requests"].index_information() == {}, "nothing was made before"
        go_on.set()
        await working
        await other.prepare()


async def test_a_replica_that_died_in_its_middle_is_taken_over_from(
    mongo: Mongo, database: Any
) -> None:
    soon, past = (datetime.now(UTC) + timedelta(seconds=s) for s in (60, -1))
    meta = database["meta"]
    dead = {"_id": "schema", "version": NOW, "lock": {"by": "dead", "until": soon}}
    await meta.insert_one(dead)
    with release(mongo, counted("a")) as ledger:
        with pytest.raises(ServiceError):
            await ledger.prepare()
        await meta.update_one({"_id": "schema"}, {"$set": {"lock.until": past}})
        await ledger.prepare()
    assert await runs(database) == {"a": 1}
    assert await schema(database) == {"_id": "schema", "version": NOW + 1}


async def test_a_step_that_fails_is_taken_again_and_not_counted(
    mongo: Mongo, database: Any
) -> None:
    failures = [OSError("a fault of its own")]

    async def fails_once(database: Any) -> None:
        await counted("a")(database)
        if failures:
            raise failures.pop()

    with release(mongo, fails_once) as ledger:
        with pytest.raises(OSError, match="a fault of its own"):
            await ledger.prepare()
        assert await schema(database) == {"_id": "schema", "version": NOW}
        await ledger.prepare()
    assert await runs(database) == {"a": 2}
    assert await schema(database) == {"_id": "schema", "version": NOW + 1}


async def test_who_lost_the_lock_does_not_count_the_step(mongo: Mongo, database: Any) -> None:
    async def outlived(database: Any) -> None:
        lock = {"by": "another", "until": datetime.now(UTC) + timedelta(seconds=60)}
        await database["meta"].update_one({"_id": "schema"}, {"$set": {"lock": lock}})

    with release(mongo, outlived) as ledger, pytest.raises(ServiceError):
        await ledger.prepare()
    found = await schema(database)
    assert (found["version"], found["lock"]["by"]) == (NOW, "another")


async def test_a_newer_database_is_left_alone(mongo: Mongo, database: Any) -> None:
    await database["meta"].insert_one({"_id": "schema", "version": NOW + 1, "more": True})
    with release(mongo) as ledger:
        for ask in (ledger.prepare, ledger.check):
            with pytest.raises(SettingsError, match=f"has schema version {NOW + 1}"):
                await ask()
    assert await schema(database) == {"_id": "schema", "version": NOW + 1, "more": True}
    assert await database.list_collection_names() == ["meta"]


@pytest.mark.parametrize("words", [("serve",), ("keys", "create", "acme")], ids=str)
async def test_a_command_says_so_in_one_line(
    servers: EmbeddedServers, tmp_path: Path, mongo: Mongo, database: Any, words: tuple[str, ...]
) -> None:
    await database["meta"].insert_one({"_id": "schema", "version": 99})
    uri = f"{servers.endpoints.mongo_uri}{mongo.database}"
    with command(servers, tmp_path, *words, MONGO_URI=uri) as process:
        code, said = await ended(process, tmp_path)
    assert code == 2
    [line] = said
    assert line.startswith(f"imgsvc: the database {mongo.database} has schema version 99")
    assert await database.list_collection_names() == ["meta"]


async def test_a_replica_that_runs_leaves_when_a_newer_one_comes(service: Service) -> None:
    mongo = service.settings.mongo
    with release(mongo, counted("a")) as newer:
        await newer.prepare()

    async def left() -> bool:
        return service.task.done()

    await wait_until(left, "the older replica left", 30)
    with pytest.raises(SettingsError, match=f"has schema version {NOW + 1}"):
        service.task.result()
    service.task = asyncio.create_task(asyncio.sleep(0))  # its end was seen
