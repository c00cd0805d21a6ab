"""What makes a Redis refuse for a while, on a real one. Each ends when its context does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from imgsvc.embedded.server import Server
from tests.support import wait_until

Refusal = Callable[[Redis], AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def read_only(admin: Redis) -> AsyncIterator[None]:
    """As after a failover: it is the replica of a master that is not there."""
    await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        await admin.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def without_its_master(admin: Redis) -> AsyncIterator[None]:
    """A replica that does not answer from what may be old."""
    async with _set(admin, "replica-serve-stale-data", "no"), read_only(admin):
        yield


@contextlib.asynccontextmanager
async def full(admin: Redis) -> AsyncIterator[None]:
    """Its memory is used up."""
    async with _set(admin, "maxmemory", "1"):
        yield


@contextlib.asynccontextmanager
async def without_replicas(admin: Redis) -> AsyncIterator[None]:
    """It takes writes only while a replica follows it, and none does."""
    async with _set(admin, "min-replicas-to-write", "1"):
        yield


@contextlib.asynccontextmanager
async def unable_to_save(admin: Redis) -> AsyncIterator[None]:
    """Its snapshot cannot be written: a folder has that name."""
    config = await admin.config_get("d*")

    async def noticed() -> bool:
        return bool((await admin.info("persistence"))["rdb_last_bgsave_status"] != "ok")

    with _folder(Path(config["dir"], config["dbfilename"])):
        async with _set(admin, "save", "3600 1"):
            await admin.bgsave()
            await wait_until(noticed, "it could not save")
            yield


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    inside = path / "not empty"
    inside.mkdir(parents=True)
    try:
        yield
    finally:
        inside.rmdir()
        path.rmdir()


@contextlib.asynccontextmanager
async def busy(admin: Redis) -> AsyncIterator[None]:
    """It is in somebody's script that does not end."""
    async with _set(admin, "lua-time-limit", "20"), Redis(**_where(admin)) as other:
        script = asyncio.create_task(other.eval("while true do end", 0))
        try:
            yield
        finally:
            with contextlib.suppress(RedisError):
                await admin.script_kill()
            await asyncio.gather(script, return_exceptions=True)


@contextlib.asynccontextmanager
async def crowded(admin: Redis) -> AsyncIterator[None]:
    """It has as many clients as it may have, and we are not among them."""
    async with _set(admin, "maxclients", "1"):
        await admin.client_kill_filter(_type="normal", skipme=True)
        yield


SLOW_TO_LOAD = ("--key-load-delay", "40000", "--rdbcompression", "no")
"""Options of a server that takes 40 ms for each key when it starts."""


@contextlib.asynccontextmanager
async def loading(admin: Redis, server: Server, keys: int = 200) -> AsyncIterator[None]:
    """It was killed and reads its snapshot, which was taken at the last moment.

    Args:
        admin: a client of the server.
        server: started with ``SLOW_TO_LOAD``.
        keys: how many it has to read besides; so large that it answers after some of them.
    """
    fill = """for i = 1, ARGV[1] do
        redis.call('SET', 'fill:' .. i, string.rep('x', 100000), 'PX', 60000)
    end"""
    await admin.eval(fill, 0, keys)
    await admin.save()
    server.kill()
    server.launch()
    yield


@contextlib.asynccontextmanager
async def _set(admin: Redis, name: str, value: str) -> AsyncIterator[None]:
    before = (await admin.config_get(name))[name]
    await admin.config_set(name, value)
    try:
        yield
    finally:
        await admin.config_set(name, before)


def _where(admin: Redis) -> dict[str, object]:
    kept = admin.connection_pool.connection_kwargs
    return {"host": kept["host"], "port": kept["port"], "socket_timeout": None}


REFUSALS: dict[str, Refusal] = {
    "READONLY": read_only,
    "READONLY, and MASTERDOWN to readers": without_its_master,
    "OOM": full,
    "NOREPLICAS": without_replicas,
    "MISCONF": unable_to_save,
    "BUSY": busy,
    "ERR max number of clients": crowded,
}
