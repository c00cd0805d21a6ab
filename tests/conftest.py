"""Real servers for all tests, started once; a service, an origin and a receiver for each.

Nothing here is a stand-in: Redis, MongoDB and the bucket are servers in processes of their own,
the service is the one that ``imgsvc serve`` runs, and all talk HTTP over sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import psutil
import pytest
import redis

from imgsvc import app
from imgsvc.cli.dev import for_development
from imgsvc.embedded.ports import free_ports
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.mailboxes.keys import WAKE
from imgsvc.runtime.settings import Settings
from tests.support import Listener, Origin, Receiver, Service, wait_until

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def pytest_configure() -> None:
    """Have SIGINT end what the tests start, also where a shell runs them in the background.

    It has background jobs ignore SIGINT, and children inherit that; a handler they do not.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """Redis, MongoDB and a bucket for the whole run."""
    embedded = EmbeddedServers(tmp_path_factory.mktemp("servers"), mongo_standalone=True)
    asyncio.run(embedded.start())
    yield embedded
    asyncio.run(embedded.stop())


@pytest.fixture
def make_settings(servers: EmbeddedServers, tmp_path: Path) -> Callable[..., Settings]:
    """Settings on the real servers, with a database, bucket and spool for this test alone.

    Call it with sections as keywords: ``make_settings(fetch={"max_bytes": 1000})``.
    """
    name = f"t{uuid.uuid4().hex[:12]}"

    def make(**sections: dict[str, Any]) -> Settings:
        defaults: dict[str, dict[str, Any]] = {
            "http": {"port": free_port(), "shutdown_s": 10},
            "mongo": {"database": name},
            "gcs": {"bucket": name},
            "spool": {"dir": tmp_path / "spool"},
            "net": {"allow": ["127.0.0.0/8"]},
            "webhook": {"secrets": [SECRET], "delay_ms": 50},
            "codec": {"workers": 1},
            "redis": {"heartbeat_s": 4, "reconcile_s": 2},
            "ratelimit": {"enabled": False},
        }
        for section, values in sections.items():
            defaults[section] = {**defaults.get(section, {}), **values}
        settings, _ = for_development(Settings(**defaults), servers.endpoints)  # type: ignore[arg-type]
        return settings

    return make


@pytest.fixture
async def start_service(
    make_settings: Callable[..., Settings],
) -> AsyncIterator[Callable[..., Any]]:
    """Starts a service with the given settings, or sections of them; stops it after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(settings: Settings | None = None, **sections: dict[str, Any]) -> Service:
            settings = settings or make_settings(**sections)
            stop = asyncio.Event()
            task = asyncio.create_task(app.serve(settings, stop))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            service = Service(settings, session, task, stop)
            stack.push_async_callback(service.stop)

            async def ready() -> bool:
                if task.done():
                    await task
                return await service.is_ready()

            await wait_until(ready, "the service is ready")
            return service

        yield start


@pytest.fixture
async def service(start_service: Callable[..., Any]) -> Service:
    """A service with default settings, ready."""
    made: Service = await start_service()
    return made


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """A web server that has every sample photograph, and what a test adds."""
    async with Origin() as running:
        yield running


@pytest.fixture
async def neighbour() -> AsyncIterator[Origin]:
    """Another origin."""
    async with Origin() as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A web server that receives webhooks and answers as the test scripts it."""
    async with Receiver() as running:
        yield running


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """Listens on some addresses of loopback, at one port."""
    listening = Listener()
    async with contextlib.AsyncExitStack() as stack:
        for address in ("127.0.0.1", "::1", "127.8.9.10"):
            with contextlib.suppress(OSError):  # only Linux has all of 127/8
                server = await asyncio.start_server(listening.accept, address, listening.port)
                await stack.enter_async_context(server)
                listening.port = server.sockets[0].getsockname()[1]
        yield listening


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """After each test: no message, no mark, no spool file and no process is left."""
    uses_servers = "servers" in request.fixturenames
    if uses_servers:
        request.getfixturevalue("servers")
    before = children()
    yield
    if uses_servers:
        assert left_in_redis(request.getfixturevalue("servers").redis.port) == {}
    spool = tmp_path / "spool"
    assert not spool.exists() or list(spool.rglob("*")) == []
    deadline = time.monotonic() + 5
    while (left := children() - before) and time.monotonic() < deadline:
        time.sleep(0.02)  # a killed process is gone only when its parent has noticed
    assert left == set()


def children() -> set[str]:
    """Commands of this run but for those that fork codec workers, which serve all tests.

    Commands, not process ids: a server that a test killed and started again is the same one.
    """
    us = psutil.Process()
    found = set()
    for process in us.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            forks_workers = process.ppid() == us.pid and "multiprocessing" in command
            if not forks_workers and process.status() != psutil.STATUS_ZOMBIE:
                found.add(command)
    return found


def left_in_redis(port: int) -> dict[str, str]:
    """Keys that hold something and do not expire by themselves."""
    left: dict[str, str] = {}
    with redis.Redis(port=port, decode_responses=True) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            if client.pttl(key) > 0 or (kind == "stream" and client.xlen(key) == 0):
                continue
            if key == WAKE:
                continue  # the bell: it may be rung when the dealer has left already
            left[key] = kind
        client.flushall()
    return left


def free_port() -> int:
    """A port that nobody listens on now, and that the kernel gives to no outgoing connection."""
    [port] = free_ports(1)
    return port
