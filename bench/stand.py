"""A test stand: real servers with nothing in them yet, an origin, and the service.

Emulators slow down as they fill, so each measurement gets a stand of its own. All processes are
started through ``imgsvc.embedded.server.Server``, which sees to it that none outlives the bench.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from bench.meter import Meter
from imgsvc.demo.loopback import serving
from imgsvc.embedded.ports import LOOPBACK, free_ports
from imgsvc.embedded.server import Server
from imgsvc.embedded.servers import EmbeddedServers, Endpoints
from imgsvc.runtime.settings import is_setting

# Another build of the service can be measured by the same bench: the path of its Python.
PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)
QUALITY = 50
_COMMANDS = {
    "service": "imgsvc serve",
    "mongo": "secantusd-py",
    "redis": "valkey-server",
    "gcs": "fake-gcs-server",
    "origin": "origin.py",
}
_MANY = "1000000000"  # the rate limiter is asked about every call, and lets all in
_MEMORY = Path("/dev/shm")  # a file system in memory, where there is one
_ENDED_WITHIN_S = 900.0


@dataclass(frozen=True)
class Peer:
    """Another service.

    Args:
        command: gives its command line; it is to use these servers and serve on this port.
        word: by which that command line is known.
    """

    command: Callable[[Endpoints, int], list[str]]
    word: str


@dataclass
class Stand:
    """What a case works with.

    Args:
        services: addresses of the replicas.
        origin: the address under which the photographs are.
        servers: Redis, MongoDB and the bucket.
        meter: of all parts.
        session: to call the service with.
    """

    services: list[str]
    origin: str
    servers: EmbeddedServers
    meter: Meter
    session: aiohttp.ClientSession
    hook: str = ""
    _ended: dict[str, asyncio.Future[float]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        """The address of the first replica."""
        return self.services[0]

    def urls(self, files: Sequence[Path], count: int) -> list[str]:
        """Addresses of ``count`` images, none of which was given out before.

        The files are taken in turn. The service remembers what it did for an address.
        """
        paths = [f"{file.parent.name}/{file.name}" for file in files]
        numbers = itertools.islice(self._numbers, count)
        return [f"{self.origin}/{paths[n % len(paths)]}?{n}" for n in numbers]

    async def post(self, urls: Sequence[str], per_product: int = 5) -> str:
        """Post a request; its id."""
        body = upload(urls, per_product) | {"webhookUrl": self.hook}
        async with self.session.post(f"{self.url}/api/upload", json=body) as response:
            if not response.ok:
                raise RuntimeError(f"an upload was answered {await response.text()}")
            return str((await response.json())["requestId"])

    async def ended(self, request_id: str) -> float:
        """Wait for the webhook of a request; the monotonic time at which it came.

        Raises:
            RuntimeError: not all of its images worked out.
            TimeoutError: it takes too long.
        """
        async with asyncio.timeout(_ENDED_WITHIN_S):
            at = await self._end(request_id)
        async with self.session.get(f"{self.url}/status/{request_id}") as response:
            found = await response.json()
        if found["status"] != "COMPLETED":
            raise RuntimeError(f"a request of the bench ended as {found}")
        return at

    async def run(self, urls: Sequence[str], per_product: int = 5) -> float:
        """Post a request and wait for its webhook; the seconds that took."""
        began = time.monotonic()
        return await self.ended(await self.post(urls, per_product)) - began

    async def receive(self, request: web.Request) -> web.Response:
        """Take a webhook."""
        end = self._end((await request.json())["data"]["requestId"])
        if not end.done():
            end.set_result(time.monotonic())
        return web.Response()

    def _end(self, request_id: str) -> asyncio.Future[float]:
        return self._ended.setdefault(request_id, asyncio.get_running_loop().create_future())


def upload(urls: Sequence[str], per_product: int) -> dict[str, Any]:
    """The body of an upload."""
    products = [urls[at : at + per_product] for at in range(0, len(urls), per_product)]
    return {
        "products": [
            {"serialNumber": str(number), "productName": f"Product {number}", "inputUrls": some}
            for number, some in enumerate(products, start=1)
        ],
        "options": {"quality": QUALITY},
    }


@contextlib.asynccontextmanager
async def stand(
    folders: Iterable[Path], *, replicas: int = 1, peer: Peer | None = None
) -> AsyncIterator[Stand]:
    """A stand with nothing in it; gone afterwards.

    Args:
        folders: the photographs that its origin has.
        replicas: processes of the service.
        peer: what is to run instead of the service, with the same routes.
    """
    async with contextlib.AsyncExitStack() as stack:
        home = _folder(stack)
        # They stand for other machines: what they write to disk is not to hold up the service. The
        # bucket's server has every object written through, which whoever uses that disk waits for.
        servers = EmbeddedServers(_folder(stack, _MEMORY), mongo_standalone=True)
        await stack.enter_async_context(servers)
        first, *ports = free_ports(replicas + 1)
        origin = Server("origin", first, _origin(first, folders), home / "origin.log", _ASK_ORIGIN)
        services = [
            Server(
                f"replica {number}",
                port,
                peer.command(servers.endpoints, port)
                if peer
                else _service(servers.endpoints, port, home),
                home / f"{port}.log",
                _ASK_SERVICE,
            )
            for number, port in enumerate(ports)
        ]
        for server in (origin, *services):
            stack.push_async_callback(server.stop)
            await server.start()
        made = Stand(
            services=[f"http://{LOOPBACK}:{port}" for port in ports],
            origin=f"http://{LOOPBACK}:{first}",
            servers=servers,
            meter=Meter.of(_COMMANDS | ({"service": peer.word} if peer else {})),
            session=await stack.enter_async_context(aiohttp.ClientSession()),
        )
        made.hook = await stack.enter_async_context(serving(made.receive))
        yield made


def _folder(stack: contextlib.AsyncExitStack, parent: Path | None = None) -> Path:
    made = tempfile.TemporaryDirectory(
        prefix="imgsvc-bench-", dir=parent if parent and parent.is_dir() else None
    )
    return Path(stack.enter_context(made))


# What to ask to see that it serves: bytes to send, and what the answer holds.
_ASK_ORIGIN = (b"GET / HTTP/1.1\r\n\r\n", b" 404 ")
_ASK_SERVICE = (b"GET /readyz HTTP/1.0\r\n\r\n", b" 200 OK")


def _origin(port: int, folders: Iterable[Path]) -> list[str]:
    script = Path(__file__).with_name("origin.py")
    return [sys.executable, str(script), str(port), *map(str, folders)]


def _service(ends: Endpoints, port: int, home: Path) -> list[str]:
    """The command of one replica, all of whose settings are defaults but for addresses."""
    # What this user has set for a service of theirs is none of the bench's business.
    unset = [name for name in os.environ if is_setting(name)]
    settings = {
        "PORT": str(port),
        "REDIS_HOST": ends.redis_host,
        "REDIS_PORT": str(ends.redis_port),
        "MONGO_URI": ends.mongo_uri,
        "STORAGE_EMULATOR_HOST": ends.gcs_url,
        "NO_PROXY": LOOPBACK,
        "IMGSVC_SPOOL__DIR": str(home / "spool"),
        "IMGSVC_NET__ALLOW": f'["{LOOPBACK}/32"]',
        "IMGSVC_LOG__FORMAT": "json",
        "IMGSVC_AUTH__MODE": "none",
        "IMGSVC_RATELIMIT__UPLOADS_PER_MINUTE": _MANY,
        "IMGSVC_RATELIMIT__READS_PER_MINUTE": _MANY,
    }
    pairs = [f"{name}={value}" for name, value in settings.items()]
    cleared = [word for name in unset for word in ("-u", name)]
    return ["env", *cleared, *pairs, PYTHON, "-m", "imgsvc", "serve", "--config", os.devnull]
