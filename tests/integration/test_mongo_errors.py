"""What MongoDB refuses for good is told apart from its being away: asked of a server with users."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.embedded.server import Server
from imgsvc.embedded.servers import _MONGO_PING, EmbeddedServers
from imgsvc.ledger import Ledger
from imgsvc.ledger.mongo_errors import lasting
from imgsvc.runtime.settings import Mongo, Settings, SettingsError
from tests.conftest import free_port
from tests.integration.proxy import between
from tests.integration.test_redis_connection import encrypted
from tests.support import wait_until

PASSWORD = "hunter2"


@dataclass
class Guarded:
    """A MongoDB that asks who comes."""

    server: Server

    def uri(self, user: str = "", password: str = PASSWORD, rest: str = "x") -> str:
        """The connection string of a user."""
        who = f"{user}:{password}@" if user else ""
        return f"mongodb://{who}127.0.0.1:{self.server.port}/{rest}"

    def ledger(self, user: str = "", password: str = PASSWORD, rest: str = "x") -> Ledger:
        """The ledger as this user sees it."""
        uri = SecretStr(self.uri(user, password, rest))
        return Ledger(Mongo(uri=uri, database="x", timeout_ms=2000))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Users: ``writer`` may work on ``x``, ``reader`` only look at it."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "mongo.toml").touch()

    def server(*more: str) -> Server:
        program = Path(sys.executable).with_name("secantusd-py")
        at = ["--config", str(folder / "mongo.toml"), "--storage-path", str(folder / "data")]
        command = [sys.executable, str(program), "--standalone", "--port", str(port), *at, *more]
        return Server("mongo", port, command, folder / "log", (_MONGO_PING, b"ok\0"))

    async def settle() -> None:
        async with AsyncMongoClient[Any](f"mongodb://127.0.0.1:{port}/") as client:
            await client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
            for user, role in (("writer", "readWrite"), ("reader", "read")):
                await client["x"].command("createUser", user, pwd=PASSWORD, roles=[role])

    port = free_port()
    open_to_all = server()
    asyncio.run(open_to_all.start())
    asyncio.run(settle())
    asyncio.run(open_to_all.stop())
    made = Guarded(server("--auth"))
    asyncio.run(made.server.start())
    yield made
    asyncio.run(made.server.stop())


REFUSED = [
    ({"user": "writer", "password": "wrong"}, "AuthenticationFailed", "user and password"),
    ({"user": "nobody"}, "AuthenticationFailed", "user and password"),
    ({"user": "writer", "rest": ""}, "AuthenticationFailed", "authSource"),
    ({}, "Unauthorized", "names none"),
    ({"user": "reader"}, "Unauthorized", "readWrite"),
]


@pytest.mark.parametrize(("who", "name", "remedy"), REFUSED, ids=str)
async def test_who_is_not_let_in_hears_so_at_the_start(
    guarded: Guarded, who: dict[str, str], name: str, remedy: str
) -> None:
    with contextlib.closing(guarded.ledger(**who)) as ledger:
        for _ in range(2):  # the second time the driver does not even try
            with pytest.raises(SettingsError) as caught:
                await ledger.prepare()
            said = str(caught.value)
            assert name in said
            assert remedy in said
            assert said.startswith("[mongo] uri: ")
            assert "\n" not in said
            assert PASSWORD not in said


async def test_who_is_let_in_works(guarded: Guarded) -> None:
    for rest in ("x", "x?authSource=x", "?authSource=x"):
        with contextlib.closing(guarded.ledger("writer", rest=rest)) as ledger:
            await ledger.prepare()
            await ledger.check()


async def test_rights_that_are_lost_later_are_told_to_the_operator_alone(guarded: Guarded) -> None:
    with contextlib.closing(guarded.ledger("reader")) as ledger:
        await ledger.check()
        with pytest.raises(ServiceError) as caught:
            await ledger.api_keys.insert("k", b"digest-of-hunter2", "t", frozenset(), None)
    told = caught.value
    assert told.code is ErrorCode.UNAVAILABLE
    assert told.remedy
    assert "readWrite" in told.remedy
    assert "Unauthorized" in told.remedy
    assert "readWrite" not in told.detail
    assert told.__cause__ is None, "it would hold the command, with all that is in it"


async def test_a_password_that_is_changed_later_is_told(guarded: Guarded) -> None:
    with contextlib.closing(guarded.ledger("writer", "wrong")) as ledger:
        for _ in range(2):
            with pytest.raises(ServiceError) as caught:
                await ledger.check()
            assert caught.value.remedy
            assert "AuthenticationFailed" in caught.value.remedy


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://writer:{PASSWORD}@127.0.0.1:1/x",
        f"mongodb://writer:{PASSWORD}@nowhere.invalid/x",
        f"mongodb+srv://writer:{PASSWORD}@nowhere.invalid/x",
        "mongodb://%2Fno%2Fsuch%2Fmongodb.sock/x",
    ],
)
async def test_a_server_that_is_away_is_no_refusal(uri: str) -> None:
    with contextlib.closing(Ledger(Mongo(uri=SecretStr(uri), timeout_ms=200))) as ledger:
        with pytest.raises(ServiceError) as caught:
            await ledger.prepare()
        assert (caught.value.code, caught.value.remedy) == (ErrorCode.UNAVAILABLE, None)


@pytest.mark.parametrize(
    ("code", "said", "remedy"),
    [
        (8000, "bad auth : authentication failed", "user and password"),
        (8000, "user is not allowed to do action [createIndex] on [x.requests]", "readWrite"),
        (8000, "you are over your space quota, using 515 MB of 512 MB", None),
        (67, "add index fails, too many indexes for x.requests key:{ at: 1 }", "indexes"),
        (121, "Document failed validation", "validator"),
        (14031, "available disk space of 1 bytes is less than required", None),
    ],
)
def test_what_a_server_with_other_words_says(code: int, said: str, remedy: str | None) -> None:
    """As servers say it that cannot be run here."""
    told = lasting(OperationFailure(said, code))
    assert told is None if remedy is None else remedy in str(told)


async def test_a_certificate_that_is_not_trusted_is_told(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    async with encrypted(tmp_path, servers.mongo.port, "127.0.0.1") as (port, ca_file):
        uri = f"mongodb://127.0.0.1:{port}/x?tls=true"
        with contextlib.closing(Ledger(Mongo(uri=SecretStr(uri), timeout_ms=2000))) as ledger:
            with pytest.raises(SettingsError, match="not trusted; tlsCAFile") as caught:
                await ledger.prepare()
            assert "\n" not in str(caught.value)
        uri += f"&tlsCAFile={ca_file}"
        with contextlib.closing(Ledger(Mongo(uri=SecretStr(uri), timeout_ms=2000))) as ledger:
            await ledger.check()


@pytest.mark.parametrize(
    ("collection", "keys", "options", "code"),
    [
        ("requests", [("status", 1), ("createdAt", 1)], {"name": "mine"}, "85"),
        ("requests", [("other", 1)], {"name": "status_1_createdAt_1"}, "86"),
        ("requests", [("expiresAt", 1)], {"expireAfterSeconds": 60}, "86"),
        ("products", [("request", 1), ("n", 1)], {"name": "mine"}, "85"),
    ],
)
async def test_an_index_in_the_way_is_named(
    make_settings: Callable[..., Settings],
    collection: str,
    keys: list[tuple[str, int]],
    options: dict[str, Any],
    code: str,
) -> None:
    mongo = make_settings().mongo
    async with AsyncMongoClient[Any](mongo.uri.get_secret_value()) as client:
        name = await client[mongo.database][collection].create_index(keys, **options)
        with contextlib.closing(Ledger(mongo)) as ledger:
            with pytest.raises(SettingsError) as caught:
                await ledger.prepare()
            said = str(caught.value)
            assert f"{mongo.database}.{collection} has an index of its own, {name}, " in said
            assert f"({code} " in said
            assert "\n" not in said
            await client[mongo.database][collection].drop_index(name)
            await ledger.prepare()


async def test_a_server_that_is_too_old_is_told(servers: EmbeddedServers) -> None:
    newest, ancient = (b"maxWireVersion\0" + bytes([version, 0, 0, 0]) for version in (27, 2))
    async with between(servers.mongo.port) as network:
        network.instead = {newest: ancient}
        uri = SecretStr(f"mongodb://127.0.0.1:{network.port}/")
        with (
            contextlib.closing(Ledger(Mongo(uri=uri, timeout_ms=2000))) as ledger,
            pytest.raises(SettingsError, match=r"^\[mongo\] uri: Server at .* wire version"),
        ):
            await ledger.prepare()


# The command, as an operator runs it.


@contextlib.contextmanager
def command(servers: EmbeddedServers, tmp_path: Path, *words: str, **environment: str) -> Any:
    """A running ``imgsvc``; its output is in the file ``said``."""
    at = servers.endpoints
    own = {
        "PATH": os.environ["PATH"],
        "PORT": str(free_port()),
        "REDIS_PORT": str(at.redis_port),
        "STORAGE_EMULATOR_HOST": at.gcs_url,
        "GCP_BUCKET_NAME": f"t{uuid.uuid4().hex[:12]}",
        "IMGSVC_SPOOL__DIR": str(tmp_path / "spool"),
        "IMGSVC_CODEC__WORKERS": "1",
        "IMGSVC_MONGO__TIMEOUT_MS": "2000",
        "IMGSVC_LOG__FORMAT": "json",
    }
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("imgsvc"), *words],
            cwd=tmp_path,
            env=own | environment,
            stdout=said,
            stderr=said,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def ended(process: subprocess.Popen[bytes], tmp_path: Path) -> tuple[int, list[str]]:
    """The exit code, and what was said that is no line of the log."""
    code = await asyncio.to_thread(process.wait, 60)
    lines = (tmp_path / "said").read_text().splitlines()
    return code, [line for line in lines if not line.startswith("{")]


WRONG_URIS = {
    "/no/such/file": "mongodb://user:hunter2@127.0.0.1/x?tls=true&tlsCAFile=/no/such/file",
    "true": "mongodb://user:hunter2@127.0.0.1/x?tls=perhaps",
    "authmechanism": "mongodb://user:hunter2@127.0.0.1/x?authMechanism=TRUST",
    "key=value": "mongodb://user:hunter2@127.0.0.1/x?replicaSet",
    "directConnection": "mongodb://user:hunter2@a,b/x?directConnection=true",
    "authSource": "mongodb://user:hunter2@a/x?authSource=",
    "IP address": "mongodb+srv://user:hunter2@10.0.0.1/x",
    "must begin": "postgres://user:hunter2@a/x",
    "Properties": "mongodb://user:hunter2@a/x?authMechanismProperties=hunter2&authMechanism=GSSAPI",
}


@pytest.mark.parametrize(("told", "uri"), WRONG_URIS.items())
async def test_a_wrong_uri_is_one_line(
    servers: EmbeddedServers, tmp_path: Path, told: str, uri: str
) -> None:
    with command(servers, tmp_path, "serve", MONGODB_URI=uri) as process:
        code, said = await ended(process, tmp_path)
    assert code == 2
    [line] = said
    assert line.startswith("imgsvc: MONGODB_URI")
    assert told.lower() in line.lower()
    assert "hunter2" not in (tmp_path / "said").read_text()


async def test_an_option_that_the_driver_does_not_know_is_a_warning(
    servers: EmbeddedServers, tmp_path: Path
) -> None:
    uri = f"{servers.endpoints.mongo_uri}t{uuid.uuid4().hex[:12]}?useNewUrlParser=true"
    with command(servers, tmp_path, "serve", MONGO_URI=uri) as process:

        async def started() -> bool:
            return "service.started" in (tmp_path / "said").read_text()

        await wait_until(started, "it starts", 60)
        process.terminate()
        code, said = await ended(process, tmp_path)
    assert (code, said) == (0, [])
    warned = [json.loads(line) for line in (tmp_path / "said").read_text().splitlines()]
    assert [line["level"] for line in warned if "usenewurlparser" in str(line)] == ["warning"]


@pytest.mark.parametrize("words", [("serve",), ("keys", "list")], ids=str)
async def test_wrong_credentials_end_a_command_with_one_line(
    servers: EmbeddedServers, guarded: Guarded, tmp_path: Path, words: tuple[str, ...]
) -> None:
    uri = guarded.uri("writer", "LEAKED")
    with command(servers, tmp_path, *words, MONGO_URI=uri) as process:
        code, said = await ended(process, tmp_path)
    assert code != 0
    [line] = said
    assert line.startswith("imgsvc: MONGO_URI: MongoDB does not accept this user and password")
    assert "LEAKED" not in (tmp_path / "said").read_text()


async def test_the_uri_does_not_make_reads_and_writes_less_safe(
    make_settings: Callable[..., Settings],
) -> None:
    mongo = make_settings().mongo
    uri = SecretStr(mongo.uri.get_secret_value() + "?readPreference=secondary&w=0")
    with contextlib.closing(Ledger(mongo.model_copy(update={"uri": uri}))) as ledger:
        await ledger.prepare()
        assert ledger.store.requests.read_preference.name == "Primary"
        assert ledger.store.requests.write_concern.document == {"w": "majority", "j": True}
