"""What can happen to a service, each as it happens in life.

A fault is done when this returns: the harm has been there for a while and is gone, and what was
killed is running again or about to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle

import psutil
from redis.asyncio import Redis

from imgsvc.embedded.server import Server
from tests.chaos.fleet import Fleet
from tests.chaos.proxy import BucketFault, LedgerFault
from tests.chaos.stack import Stack
from tests.integration.proxy import Proxy
from tests.redis_faults import REFUSALS, Refusal

NETWORK_S = 1.5
OPENING, CLOSING = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"
CUT_BYTES = 64 << 10
LOADED_DB = 9


@dataclass
class Chaos:
    """What faults act on."""

    stack: Stack
    fleet: Fleet
    wire: Proxy  # between replicas and Redis
    rng: random.Random
    heartbeat_s: float


# Returns the name of the replica it happened to, None if it happened to all.
Fault = Callable[[Chaos], Awaitable[str | None]]


async def nothing(_: Chaos) -> None:
    """How long work takes that nothing happens to."""


async def kill_replica(chaos: Chaos) -> str:
    replica = await chaos.fleet.victim()
    await replica.kill()
    chaos.fleet.start_later(chaos.rng.uniform(0, 2))
    return replica.name


async def pause_replica(chaos: Chaos) -> str:
    """For so long that the others take over; then it wakes up and knows nothing of it."""
    replica = await chaos.fleet.victim()
    replica.pause()
    await asyncio.sleep(chaos.heartbeat_s + chaos.rng.uniform(1, 2))
    replica.resume()
    return replica.name


async def replace_replica(chaos: Chaos) -> str:
    """As a rolling deployment does: the new one first, then SIGTERM."""
    replica = await chaos.fleet.victim()
    assert await chaos.stack.start().ready()
    exit_code = await replica.leave()
    assert exit_code == 0, f"{replica.name} left with {exit_code}"
    return replica.name


async def jump_clock(chaos: Chaos) -> str:
    """One replica's wall clock is set minutes ahead or back, and right again later."""
    replica = await chaos.fleet.victim()
    replica.set_clock(chaos.rng.choice([-1, 1]) * chaos.rng.uniform(30, 240))
    await asyncio.sleep(chaos.rng.uniform(1, 3))
    replica.set_clock(0)
    return replica.name


async def kill_codec_worker(chaos: Chaos) -> str:
    replica = await chaos.fleet.victim()
    for worker in replica.codec_workers():
        _kill(worker)
    return replica.name


async def kill_fork_server(chaos: Chaos) -> str:
    """What codec workers are forked from, and the worker."""
    replica = await chaos.fleet.victim()
    for worker in replica.codec_workers():
        if server := worker.parent():
            _kill(server)
        _kill(worker)
    return replica.name


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


async def fill_disk(chaos: Chaos) -> str:
    """No file of one replica may grow beyond 1 kB: writes fail as on a disk that is full."""
    replica = await chaos.fleet.victim()
    limited = [replica.process.pid, *(worker.pid for worker in replica.codec_workers())]
    for pid in limited:
        _limit_files(pid, 1024)
    await asyncio.sleep(chaos.rng.uniform(2, 4))
    for pid in limited:
        _limit_files(pid, resource.RLIM_INFINITY)
    return replica.name


def _limit_files(pid: int, size: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)  # workers have one of their own
        resource.prlimit(
            pid,
            resource.RLIMIT_FSIZE,
            (most if size == resource.RLIM_INFINITY else size, most),
        )


async def kill_redis(chaos: Chaos) -> None:
    await _restart(chaos.stack.servers.redis, chaos.rng)


async def hang_redis(chaos: Chaos) -> None:
    await _hang(chaos.stack.servers.redis, chaos.rng)


async def cut_connections(chaos: Chaos) -> None:
    """All to Redis at once: some commands were carried out, some not, and nobody knows."""
    chaos.wire.cut()


async def lose_replies(chaos: Chaos) -> None:
    """Of scripts, again and again: each was carried out, and the caller does not know."""
    for _ in range(10):
        chaos.wire.lose_reply_to = b"EVALSHA"
        await asyncio.sleep(NETWORK_S / 10)
    chaos.wire.lose_reply_to = None


async def wipe_redis(chaos: Chaos) -> None:
    await chaos.stack.redis.flushall()


def refuse(refusal: Refusal) -> Fault:
    """It refuses what replicas want of it."""

    async def refusing(chaos: Chaos) -> None:
        port = chaos.stack.servers.redis.port
        async with (
            Redis(port=port, decode_responses=True, single_connection_client=True) as admin,
            refusal(admin),
        ):
            await asyncio.sleep(chaos.rng.uniform(1, 2))

    return refusing


async def load_slowly(chaos: Chaos) -> None:
    """It was killed, and has much to read before it answers again."""
    much = "for i = 1, 100000 do redis.call('SET', 'fill:' .. i, 'x', 'PX', 5000) end"
    server = chaos.stack.servers.redis
    async with Redis(port=server.port, db=LOADED_DB, socket_timeout=30) as admin:
        await admin.eval(much, 0)
    server.kill()
    await server.start()


async def cut_append_only_file(chaos: Chaos) -> None:
    """Its machine fails: the last of what it acknowledged never reached the disk.

    Transactions are cut off whole, as Valkey does itself when it starts. Redis 6.2
    leaves an open one at the end of the file, and carries it out when it starts once more.
    """
    servers = chaos.stack.servers
    servers.redis.kill()
    folder = servers.data_dir / "redis"
    # Redis 6.2 has one file, later ones a folder of them.
    files = [*folder.glob("appendonlydir/*.incr.aof"), *folder.glob("appendonly.aof")]
    newest = max(files, key=lambda path: path.stat().st_mtime)
    kept = newest.read_bytes()
    kept = kept[: len(kept) - chaos.rng.randint(0, min(len(kept), CUT_BYTES))]
    opened = kept.rfind(OPENING)
    if opened > kept.rfind(CLOSING):
        kept = kept[:opened]
    os.truncate(newest, len(kept))
    await servers.redis.start()


async def kill_mongo(chaos: Chaos) -> None:
    await _restart(chaos.stack.servers.mongo, chaos.rng)


async def hang_mongo(chaos: Chaos) -> None:
    await _hang(chaos.stack.servers.mongo, chaos.rng)


async def _restart(server: Server, rng: random.Random) -> None:
    server.kill()
    await asyncio.sleep(rng.uniform(0, 1.5))
    await server.start()


async def _hang(server: Server, rng: random.Random) -> None:
    server.signal(signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(1, 3))
    server.signal(signal.SIGCONT)


def harm_bucket(fault: BucketFault) -> Fault:
    """Every second object that is created meets this fault."""

    async def harm(chaos: Chaos) -> None:
        turns = cycle([fault, None])
        chaos.stack.gcs.fault = lambda _: next(turns)
        await asyncio.sleep(NETWORK_S)
        chaos.stack.gcs.heal()

    return harm


def harm_ledger(fault: LedgerFault) -> Fault:
    """Every fourth write meets this fault."""

    async def harm(chaos: Chaos) -> None:
        turns = cycle([fault, None, None, None])
        chaos.stack.ledger.fault = lambda _: next(turns)
        await asyncio.sleep(NETWORK_S)
        chaos.stack.ledger.heal()

    return harm


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "replica: kill -9": kill_replica,
    "replica: SIGSTOP, SIGCONT": pause_replica,
    "replica: replaced": replace_replica,
    "replica: clock jumps": jump_clock,
    "codec worker: kill -9": kill_codec_worker,
    "codec fork server: kill -9": kill_fork_server,
    "disk: full": fill_disk,
    "Redis: kill -9": kill_redis,
    "Redis: hangs": hang_redis,
    "Redis: connections cut": cut_connections,
    "Redis: replies to scripts lost": lose_replies,
    "Redis: FLUSHALL": wipe_redis,
    "Redis: slow to load": load_slowly,
    **{f"Redis: {name}": refuse(refusal) for name, refusal in REFUSALS.items()},
    "Redis: AOF tail cut": cut_append_only_file,
    "MongoDB: kill -9": kill_mongo,
    "MongoDB: hangs": hang_mongo,
    **{f"MongoDB: {fault.value}": harm_ledger(fault) for fault in LedgerFault},
    **{f"bucket: {fault.value}": harm_bucket(fault) for fault in BucketFault},
}
if not hasattr(resource, "prlimit"):  # macOS
    del FAULTS["disk: full"]
