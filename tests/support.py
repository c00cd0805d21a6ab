"""What the fixtures hand out: a running service, an origin, a receiver."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

from imgsvc.runtime.settings import Settings
from tests.photos import photo

TERMINAL = {"COMPLETED", "PARTIAL", "FAILED", "CANCELLED"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def wait_until(
    condition: Callable[[], Awaitable[Any]], what: str, within_s: float = 90.0
) -> Any:
    """The first true answer of ``condition``; fails with ``what`` was waited for."""
    deadline = time.monotonic() + within_s
    while True:
        if answer := await condition():
            return answer
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.02)


class Service:
    """A running service, seen from outside."""

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        task: asyncio.Task[None],
        stop: asyncio.Event,
    ) -> None:
        self.settings = settings
        self.session = session
        self.task = task
        self._stop = stop
        self.url = f"http://127.0.0.1:{settings.http.port}"

    async def stop(self) -> None:
        """Have it leave in good order."""
        self._stop.set()
        await self.task

    async def is_ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            async with self.session.get(f"{self.url}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def get(self, path: str, **query: Any) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        async with self.session.get(f"{self.url}{path}", params=query) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, **request: Any) -> tuple[int, Any]:
        """Status and JSON of a POST; ``request`` as aiohttp takes it."""
        async with self.session.post(f"{self.url}{path}", **request) as response:
            return response.status, await response.json(content_type=None)

    async def delete(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a DELETE."""
        async with self.session.delete(f"{self.url}{path}") as response:
            return response.status, await response.json(content_type=None)

    async def upload(self, products: Iterable[list[str]], **more: Any) -> str:
        """Post products, given as lists of URLs; returns the request's id."""
        body = {
            "products": [
                {"serialNumber": str(i), "productName": f"Product {i}", "inputUrls": urls}
                for i, urls in enumerate(products, start=1)
            ],
            **more,
        }
        status, answer = await self.post("/api/upload", json=body)
        assert status == 202, answer
        return str(answer["requestId"])

    async def finished(self, request_id: str, within_s: float = 90.0) -> dict[str, Any]:
        """The status object, once the request has ended."""

        async def ended() -> dict[str, Any] | None:
            _, found = await self.get(f"/status/{request_id}")
            return found if found["status"] in TERMINAL else None

        found: dict[str, Any] = await wait_until(ended, f"{request_id} ended", within_s)
        return found

    async def announced(self, request_id: str, within_s: float = 90.0) -> dict[str, Any]:
        """The status object, once its webhook is delivered or given up."""

        async def told() -> dict[str, Any] | None:
            _, found = await self.get(f"/status/{request_id}")
            return found if found["webhook"]["status"] != "PENDING" else None

        found: dict[str, Any] = await wait_until(told, f"{request_id} was announced", within_s)
        return found

    async def images(self, request_id: str) -> list[dict[str, Any]]:
        """All images of a request."""
        status, page = await self.get(f"/api/requests/{request_id}/images", limit=1000)
        assert status == 200, page
        found: list[dict[str, Any]] = page["images"]
        return found

    async def report(self, request_id: str, **query: Any) -> list[dict[str, str]]:
        """The CSV, as one dict for each product."""
        async with self.session.get(f"{self.url}/download/{request_id}", params=query) as response:
            assert response.status == 200, await response.text()
            return list(csv.DictReader(io.StringIO(await response.text())))

    async def objects(self, request_id: str) -> list[str]:
        """The names of all objects of a request in the bucket."""
        gcs = self.settings.gcs
        url = f"{gcs.emulator_host}/storage/v1/b/{gcs.bucket}/o"
        async with self.session.get(url, params={"prefix": f"{request_id}/"}) as response:
            assert response.status == 200
            return [item["name"] for item in (await response.json()).get("items", [])]

    async def stored(self, url: str) -> bytes:
        """The object behind an output URL."""
        async with self.session.get(url) as response:
            assert response.status == 200, url
            return await response.read()


class Server:
    """An aiohttp server on a free port of loopback."""

    def __init__(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        self.base = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()


class Origin(Server):
    """Where images come from. Counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers: dict[str, Handler] = {}
        self.asked: list[str] = []

    def url(self, name: str) -> str:
        """The address of a sample photograph, or of what was added under this name."""
        return f"{self.base}/{name}"

    def photo(self, name: str) -> bytes:
        """The file behind the address of a sample photograph."""
        return photo(name)

    def add(self, name: str, what: bytes | Handler) -> str:
        """Serve bytes, or let a handler answer; returns the address."""
        if isinstance(what, bytes):

            async def serve(_: web.Request, body: bytes = what) -> web.Response:
                return web.Response(body=body, content_type="application/octet-stream")

            self._handlers[name] = serve
        else:
            self._handlers[name] = what
        return self.url(name)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["path"]
        self.asked.append(name)
        if name in self._handlers:
            return await self._handlers[name](request)
        try:
            return web.Response(body=photo(name), content_type="image/jpeg")
        except KeyError:
            raise web.HTTPNotFound from None


@dataclass(frozen=True)
class Received:
    """One webhook as it arrived."""

    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


class Receiver(Server):
    """Where webhooks go. Answers 200 unless scripted otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[Received] = []
        self.script: list[int | Handler] = []

    @property
    def url(self) -> str:
        """The address for ``webhookUrl``."""
        return f"{self.base}/hook"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, await request.read()))
        step = self.script.pop(0) if self.script else 200
        if isinstance(step, int):
            return web.Response(status=step)
        return await step(request)


class Listener:
    """Counts who connects to loopback."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    def accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()
