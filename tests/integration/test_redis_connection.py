"""Every way to a real Redis, the rights that the service needs there, and what it refuses to use."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from imgsvc.domain.errors import ServiceError
from imgsvc.embedded.ports import LOOPBACK, free_ports
from imgsvc.embedded.server import Server
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.mailboxes.connection import connect
from imgsvc.mailboxes.keys import FETCH
from imgsvc.mailboxes.mailboxes import Mailboxes
from imgsvc.runtime.settings import Redis as RedisSettings
from imgsvc.runtime.settings import Settings
from tests.chaos.replicas import inherited
from tests.integration.proxy import between
from tests.redis_servers import PROGRAMS, redis_server, running
from tests.support import Origin, Receiver, Service, wait_until
from tests.unit.test_redis_refusals import NOT_LOOKED_AT, acl_line, documented

PASSWORD = "p@ss/word:with #?%"
IN_URL = quote(PASSWORD, safe="")
NOT_ALLOWED = "ok, eviction policy unknown (INFO/CONFIG not allowed)"
kinds = pytest.mark.parametrize("kind", PROGRAMS)


@contextlib.asynccontextmanager
async def mailboxes(url: str, **more: Any) -> AsyncIterator[Mailboxes]:
    settings = RedisSettings.model_validate({"url": url, **more})
    async with connect(settings) as client:
        yield Mailboxes(client, settings, "a")


async def works(url: str, **more: Any) -> str:
    """Use Redis as a replica does when it starts; what /readyz would say."""
    async with mailboxes(url, **more) as boxes:
        await boxes.prepare()
        await boxes.replicas.beat()
        inbox = boxes.inbox(FETCH)
        await inbox.take(1, 1)
        await inbox.close()
        return await boxes.server.check()


@contextlib.contextmanager
def refused(words: str) -> Iterator[None]:
    """What only an operator can change is told as that, in one line."""
    with pytest.raises(ServiceError) as caught:
        yield
    assert caught.value.remedy
    assert re.search(words, caught.value.remedy)
    assert "\n" not in caught.value.remedy


def at(settings: Settings, url: str, **more: Any) -> Settings:
    redis = RedisSettings.model_validate({**settings.redis.model_dump(), "url": url, **more})
    return settings.model_copy(update={"redis": redis})


@contextlib.asynccontextmanager
async def with_user(kind: str, folder: Path, *without: str) -> AsyncIterator[tuple[str, Redis]]:
    """A Redis that only lets in the documented user; its URL, and the way in for an admin."""
    words = acl_line().replace("change-me", PASSWORD).split(" ")
    at_password = words.index(">p@ss/word:with")
    words[at_password : at_password + 2] = [f">{PASSWORD}"]
    rights = [word for word in words if word.removeprefix("+") not in without]
    async with (
        running(kind, folder) as server,
        Redis(port=server.port, decode_responses=True) as admin,
    ):
        await admin.execute_command(*rights)
        yield f"redis://imgsvc:{IN_URL}@{LOOPBACK}:{server.port}/0", admin


# As whom.


@kinds
async def test_the_documented_user_may_do_all_that_the_service_does(
    kind: str,
    make_settings: Callable[..., Settings],
    start_service: Any,
    origin: Origin,
    tmp_path: Path,
) -> None:
    async with with_user(kind, tmp_path / "redis") as (url, admin), Receiver() as receiver:
        await admin.execute_command("ACL", "SETUSER", "default", "nopass", "~*", "+@all")
        settings = at(make_settings(ratelimit={"enabled": True, "bytes_per_day": 1 << 30}), url)
        service: Service = await start_service(settings)
        receiver.script = [500]  # so that a webhook waits

        async def ready() -> bool:
            _, answer = await service.get("/readyz")
            return bool(answer["checks"]["redis"] == "ok")

        await wait_until(ready, "ready, and all is known")
        urls = [origin.url("coins.png"), origin.url("none.jpg"), "http://127.0.0.1:1/away.png"]
        request_id = await service.upload([urls], webhookUrl=receiver.url)
        assert (await service.announced(request_id))["status"] == "PARTIAL"
        await service.stop()
        assert [entry["object"] for entry in await admin.acl_log()] == []


@kinds
async def test_without_client_info_and_config_it_works_and_leaves_in_good_order(
    kind: str,
    make_settings: Callable[..., Settings],
    start_service: Any,
    origin: Origin,
    tmp_path: Path,
) -> None:
    missing = ("client|id", "client|unblock", "info")
    async with with_user(kind, tmp_path / "redis", *missing) as (url, _):
        service: Service = await start_service(at(make_settings(), url))
        status, answer = await service.get("/readyz")
        assert (status, answer["checks"]["redis"]) == (200, NOT_ALLOWED)
        request_id = await service.upload([[origin.url("coins.png")]])
        assert (await service.finished(request_id))["status"] == "COMPLETED"
        left = time.monotonic()
        await service.stop()
        assert time.monotonic() - left < service.settings.http.shutdown_s


@kinds
async def test_where_commands_were_renamed_away_it_works_as_well(kind: str, tmp_path: Path) -> None:
    renamed = [
        word for name in ("CLIENT", "INFO", "CONFIG") for word in ("--rename-command", name, "")
    ]
    async with running(kind, tmp_path, *renamed) as server:
        assert await works(f"redis://{LOOPBACK}:{server.port}") == NOT_ALLOWED


@kinds
async def test_nor_does_it_matter_in_which_words_a_managed_redis_says_so(
    kind: str, tmp_path: Path
) -> None:
    async with running(kind, tmp_path) as server, between(server.port) as wire:
        # Refused, in words that are not those of a missing right.
        wire.instead = {b"\nINFO\r": b"\nHGET\r", b"\nCONFIG\r": b"\nOBJECT\r"}
        assert await works(f"redis://{LOOPBACK}:{wire.port}") == NOT_ALLOWED


# Where.


@kinds
async def test_a_socket_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "my redis.sock"
    options = ("--unixsocket", str(path), "--requirepass", PASSWORD)
    async with running(kind, tmp_path, *options, answer=b"-NOAUTH"):
        assert await works(f"unix://:{IN_URL}@{quote(str(path))}?db=3") == "ok"


@contextlib.asynccontextmanager
async def encrypted(folder: Path, port: int, name: str) -> AsyncIterator[tuple[int, Path]]:
    """TLS before a Redis, with a certificate for ``name`` that vouches for itself."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    kind = "IP" if name == LOOPBACK else "DNS"
    await asyncio.to_thread(
        subprocess.run,
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}",
         "-addext", f"subjectAltName={kind}:{name}"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with between(port, tls=context) as proxy:
        yield proxy.port, certificate


async def test_an_encrypted_connection_and_whom_it_trusts(tmp_path: Path) -> None:
    async with (
        running("valkey", tmp_path / "redis") as server,
        encrypted(tmp_path, server.port, LOOPBACK) as (port, ca_file),
    ):
        url = f"rediss://{LOOPBACK}:{port}"
        assert await works(url, ca_file=ca_file) == "ok"
        single = {"host": LOOPBACK, "port": port, "tls": True, "ca_file": ca_file}
        assert await works("", **single) == "ok"
        with refused(r"not trusted.*ca_file"):
            await works(url)
    async with encrypted(tmp_path, server.port, "redis.example") as (port, ca_file):
        with refused("not trusted"):
            await works(f"rediss://{LOOPBACK}:{port}", ca_file=ca_file)


async def test_a_connection_to_what_became_a_replica_is_given_up(tmp_path: Path) -> None:
    """As where the name of a managed Redis leads elsewhere after a failover."""
    async with (
        running("redis6", tmp_path / "old") as old,
        running("redis6", tmp_path / "new") as new,
        between(old.port) as wire,
        mailboxes(f"redis://{LOOPBACK}:{wire.port}") as boxes,
        Redis(port=old.port) as admin,
    ):
        await boxes.replicas.beat()
        wire.server_port = new.port
        await boxes.replicas.beat()
        assert await admin.zcard("{imgsvc}:replicas") == 1, "connections stay where they are"
        await admin.execute_command("REPLICAOF", LOOPBACK, "1")
        with pytest.raises(ServiceError, match="READONLY"):
            await boxes.replicas.beat()  # in a script, as Redis 6.2 tells it
        await boxes.replicas.beat()
        async with Redis(port=new.port) as other:
            assert await other.zcard("{imgsvc}:replicas") == 1


@contextlib.asynccontextmanager
async def watched(kind: str, folder: Path) -> AsyncIterator[tuple[int, Server]]:
    """A master with one replica, watched by one Sentinel; its port, and the master."""
    [port] = free_ports(1)
    locked = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    async with running(kind, folder / "m", *locked, answer=b"-NOAUTH") as master:
        follows = ("--replicaof", LOOPBACK, str(master.port), "--repl-diskless-sync-delay", "0")
        async with running(kind, folder / "r", *locked, *follows, answer=b"-NOAUTH"):
            config = folder / "sentinel.conf"
            config.write_text(
                f'port {port}\nbind {LOOPBACK}\ndir "{folder}"\n'
                f"sentinel monitor the-master {LOOPBACK} {master.port} 1\n"
                f'sentinel auth-pass the-master "{PASSWORD}"\n'
                "sentinel down-after-milliseconds the-master 500\n"
                "sentinel failover-timeout the-master 3000\n"
            )
            command = [str(redis_server(kind)), str(config), "--sentinel"]
            sentinel = Server("sentinel", port, command, folder / "log", (b"PING\r\n", b"+PONG"))
            try:
                await sentinel.start()
                async with Redis(port=port, decode_responses=True) as asked:

                    async def knows() -> bool:
                        state = await asked.execute_command("SENTINEL", "MASTER", "the-master")
                        return bool(int(state["num-slaves"]))

                    await wait_until(knows, "the Sentinel knows the replica")
                yield port, master
            finally:
                sentinel.kill()


@kinds
async def test_the_master_is_followed_over_a_failover(
    kind: str,
    make_settings: Callable[..., Settings],
    start_service: Any,
    origin: Origin,
    tmp_path: Path,
) -> None:
    async with watched(kind, tmp_path) as (port, master):
        url = f"redis+sentinel://:{IN_URL}@127.0.0.1:1,{LOOPBACK}:{port}/the-master/0"
        service: Service = await start_service(at(make_settings(), url))
        urls = [f"{origin.url('coins.png')}?{n}" for n in range(6)]
        before = await service.upload([urls])
        master.kill()
        during = await service.upload([urls])
        for request_id in (before, during):
            assert (await service.finished(request_id, within_s=60))["status"] == "COMPLETED"
        assert await service.is_ready()
        await service.stop()


# What it does not use.


@kinds
async def test_what_can_not_be_used_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path / "a", "--cluster-enabled", "yes") as server:
        with refused(r"node of a cluster.* Sentinels"):
            await works(f"redis://{LOOPBACK}:{server.port}")
    async with running(kind, tmp_path / "b", "--rename-command", "EVALSHA", "") as server:
        with refused("EVALSHA"):
            await works(f"redis://{LOOPBACK}:{server.port}")
    async with running(kind, tmp_path / "c", "--databases", "2") as server:
        with refused("no database of that number"):
            await works(f"redis://{LOOPBACK}:{server.port}/2")
    async with running(kind, tmp_path / "d", "--requirepass", "x", answer=b"-NOAUTH") as server:
        for who in ("", ":wrong@", "somebody:x@"):
            with refused("password"):
                await works(f"redis://{who}{LOOPBACK}:{server.port}")


@kinds
async def test_each_right_that_is_missing_is_told_at_the_start(kind: str, tmp_path: Path) -> None:
    async with with_user(kind, tmp_path) as (url, admin):
        for right in sorted(documented() - NOT_LOOKED_AT):
            await admin.execute_command(
                "ACL", "SETUSER", "imgsvc", "-@all", *(f"+{one}" for one in documented() - {right})
            )
            with refused(r"does not allow our user what docs/redis\.md lists \(NOPERM "):
                await works(url)

            async def nothing_stays() -> bool:
                return [key async for key in admin.scan_iter()] == []

            await wait_until(nothing_stays, f"what was tried without {right} is gone")
        await admin.execute_command("ACL", "SETUSER", "imgsvc", "resetkeys", "~other:*")
        with refused(r"NOPERM .* keys?\b"):
            await works(url)


def test_the_command_ends_with_one_line(servers: EmbeddedServers, tmp_path: Path) -> None:
    environment = {
        **inherited(),
        "MONGO_URI": servers.endpoints.mongo_uri,
        "STORAGE_EMULATOR_HOST": servers.endpoints.gcs_url,
        "IMGSVC_SPOOL__DIR": str(tmp_path / "spool"),
        "IMGSVC_CODEC__WORKERS": "1",
        "IMGSVC_LOG__LEVEL": "error",
        "REDIS_URL": f"redis://:hunter2@{LOOPBACK}:{servers.redis.port}/99",
    }
    done = subprocess.run(
        [sys.executable, "-m", "imgsvc", "serve"],
        cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    told = done.stderr.decode()
    assert done.returncode == 2, told
    assert told.startswith(
        "imgsvc: Redis has no database of that number: see REDIS_URL and [redis] db"
    )
    assert told.count("\n") == 1
    assert "hunter2" not in told
