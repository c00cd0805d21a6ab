"""The service in a process of its own: a real ``imgsvc serve``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from imgsvc.demo.client import Client
from imgsvc.demo.meter import Meter
from imgsvc.embedded import child
from imgsvc.embedded.errors import EmbeddedError
from imgsvc.embedded.ports import LOOPBACK, free_ports
from imgsvc.embedded.servers import Endpoints
from imgsvc.runtime.settings import is_setting

_BUCKET = "imgsvc-demo"
_READY_S, _STOP_S = 60.0, 30.0
_POLL_S = 0.05


class Service:
    """A running ``imgsvc serve``.

    Args:
        servers: where its Redis, MongoDB and bucket are.
        spool: its folder for files in flight.
        secret: that it signs webhooks with.
        log: the file that its output goes to.
    """

    def __init__(self, servers: Endpoints, spool: Path, secret: str, log: Path) -> None:
        self._servers = servers
        self._log = log
        [port] = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        self.meter = Meter()
        self.exit_code: int | None = None
        # What this user has set for a service of theirs is none of the demo's business.
        own = {name: value for name, value in os.environ.items() if not is_setting(name)}
        self._environment = own | {
            "PORT": str(port),
            "REDIS_HOST": servers.redis_host,
            "REDIS_PORT": str(servers.redis_port),
            "MONGO_URI": servers.mongo_uri,
            "STORAGE_EMULATOR_HOST": servers.gcs_url,
            "GCP_BUCKET_NAME": _BUCKET,
            "NO_PROXY": LOOPBACK,
            "IMGSVC_SPOOL__DIR": str(spool),
            "IMGSVC_WEBHOOK__SECRETS": json.dumps([secret]),
            # Origin and receiver are on this machine, which the service otherwise never calls.
            "IMGSVC_NET__ALLOW": json.dumps([f"{LOOPBACK}/32"]),
            "IMGSVC_LOG__FORMAT": "json",
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        """The service from ready to stopped in good order; it never outlives this process.

        Raises:
            EmbeddedError: it does not become ready.
        """
        watcher = Path(child.__file__)
        with self._log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(watcher)),
                *(sys.executable, "-m", "imgsvc", "serve", "--config", os.devnull),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the service
            )
        assert process.stdin is not None  # noqa: S101 - it was asked for
        # The watcher began a session, which is named after it.
        measuring = asyncio.create_task(self.meter.run(session=process.pid))
        try:
            async with aiohttp.ClientSession(self.url) as session:
                client = Client(session)
                await _make_bucket(session, self._servers)
                await self._ready(client, process)
                yield client
        finally:
            process.stdin.write(bytes([signal.SIGTERM]))
            try:
                with contextlib.suppress(TimeoutError):
                    self.exit_code = await asyncio.wait_for(process.wait(), _STOP_S)
            finally:
                measuring.cancel()
                process.stdin.close()  # kills what is left, see child.py
                await process.wait()

    async def _ready(self, client: Client, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                while process.returncode is None:
                    if await client.is_ready():
                        return
                    await asyncio.sleep(_POLL_S)
        tail = self._log.read_text(errors="replace").strip()[-2000:]
        raise EmbeddedError(f"imgsvc serve did not get ready. The end of {self._log}:\n{tail}")


async def _make_bucket(session: aiohttp.ClientSession, servers: Endpoints) -> None:
    """Creates the bucket; in real life its owner does."""
    url = f"{servers.gcs_url}/storage/v1/b?project=demo"
    async with session.post(url, json={"name": _BUCKET}, raise_for_status=True):
        pass
