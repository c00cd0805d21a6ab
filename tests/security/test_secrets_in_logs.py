"""Whatever happens, no secret, no token and no query reaches the log: grepped at level debug."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from imgsvc.auth import credentials
from imgsvc.domain.model import Scope
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.ledger import Ledger
from imgsvc.runtime.settings import Mongo
from tests.conftest import free_port
from tests.support import Origin, Receiver, wait_until

ROOT = Path(__file__).parents[2]
WHSEC = "whsec_" + base64.b64encode(b"LEAKEDsecretLEAKEDsecretLEAK").decode()
OWN_WHSEC = "whsec_" + base64.b64encode(b"LEAKEDsecretLEAKEDsecretown!").decode()
LEAK = "LEAKED"  # in every secret that no pattern could know


@dataclass
class Program:
    """A running ``imgsvc serve`` and all that it said."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    async def stop(self) -> str:
        """Everything it said, once it has left in good order."""
        self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, 30)
        return self.log.read_text()


@pytest.fixture
def serve(servers: EmbeddedServers, tmp_path: Path) -> Iterator[Any]:
    """Starts ``imgsvc serve`` with more environment."""
    started = []

    def start(**environment: str) -> Program:
        at, port = servers.endpoints, free_port()
        own = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PORT": str(port),
            "MONGO_URI": at.mongo_uri,
            "REDIS_HOST": at.redis_host,
            "REDIS_PORT": str(at.redis_port),
            "STORAGE_EMULATOR_HOST": at.gcs_url,
            "GCP_BUCKET_NAME": f"t{uuid.uuid4().hex[:12]}",
            "IMGSVC_LOG__LEVEL": "debug",
            "IMGSVC_SPOOL__DIR": str(tmp_path / "spool"),
            "IMGSVC_CODEC__WORKERS": "1",
            "IMGSVC_NET__ALLOW": '["127.0.0.0/8"]',
        }
        log = tmp_path / f"log{len(started)}"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "imgsvc", "serve"],
                cwd=tmp_path,
                env=own | environment,
                stdout=out,
                stderr=out,
            )
        started.append(process)
        return Program(process, log, port)

    yield start
    for process in started:
        process.kill()
        process.wait()


async def raw(port: int, data: bytes) -> None:
    """Bytes that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await asyncio.wait_for(reader.read(), 10)
    writer.close()


class Shop:
    """A client whose every word holds a secret."""

    def __init__(self, program: Program, session: aiohttp.ClientSession) -> None:
        self._base = f"http://127.0.0.1:{program.port}"
        self._session = session

    async def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of an answer."""
        async with self._session.request(method, self._base + path, **request) as response:
            return await response.json(content_type=None)

    async def is_served(self) -> bool:
        try:
            return bool((await self.call("GET", "/readyz"))["status"] == "ready")
        except aiohttp.ClientError:
            return False

    async def post(self, urls: list[str], webhook: dict[str, Any] | None = None) -> str | None:
        """The id of a new request, if it was accepted."""
        product = {"serialNumber": "1", "productName": "x", "inputUrls": urls}
        body = {"products": [product], "webhook": webhook}
        answer = await self.call("POST", "/api/upload", json=body)
        return answer.get("requestId")

    async def post_csv(self, url: str, hook: str) -> str:
        answer = await self.call(
            *("POST", "/api/upload"),
            params={"webhookUrl": hook},
            data=f"Serial Number,Product Name,Input Image Urls\n1,x,{url}\n",
            headers={"Content-Type": "text/csv", "Cookie": f"session={LEAK}"},
        )
        return str(answer["requestId"])

    async def is_told(self, request_id: str) -> bool:
        webhook = (await self.call("GET", f"/status/{request_id}"))["webhook"]
        return bool(webhook["status"] != "PENDING")


MALFORMED = [
    f"GET /status/x?token={LEAK} HTTP/1.1\r\nBad Header: {LEAK}\r\n\r\n",
    f"GET /status/x?token={LEAK}{'x' * 9000} HTTP/1.1\r\n\r\n",
    f"GET /status/x?token={LEAK} HTTP/7.1\r\nAuthorization: {LEAK}\r\n\r\n",
    f"GET /status/x?token={LEAK} HTTP/1.1\r\nContent-Length: {LEAK}\r\n\r\n",
    f"{LEAK}\r\n\r\n",
]


async def moved(_: web.Request) -> web.Response:
    raise web.HTTPFound(f"http://127.0.0.1:{free_port()}/gone?sig={LEAK}")


async def failed(_: web.Request) -> web.Response:
    return web.Response(status=500, text=LEAK, headers={"X-Echo": LEAK})


async def test_nothing_secret_reaches_the_log(
    serve: Any, servers: EmbeddedServers, origin: Origin, receiver: Receiver
) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    key, unknown = credentials.new(), credentials.new()
    ledger = Ledger(Mongo(uri=SecretStr(servers.endpoints.mongo_uri), database=name))
    await ledger.api_keys.insert(key.id, key.digest, "shop", frozenset(Scope), None)
    ledger.close()
    program: Program = serve(
        IMGSVC_MONGO__DATABASE=name,
        IMGSVC_AUTH__MODE="keys",
        IMGSVC_WEBHOOK__SECRETS=json.dumps([WHSEC]),
        IMGSVC_WEBHOOK__DELAY_MS="50",
        IMGSVC_FETCH__ATTEMPTS="1",
    )
    origin.add("moved", moved)
    receiver.script = [failed, 200]
    hook = f"{receiver.url}?token={LEAK}"
    secret_headers = {"Authorization": f"Bearer {LEAK}", "X-Key": LEAK}
    webhook = {"url": hook, "secret": OWN_WHSEC, "headers": secret_headers}
    urls = [f"{origin.url(path)}?sig={LEAK}&x=a%20b" for path in ("rocket.jpg", "no", "moved")]
    urls.append(f"http://127.0.0.1:{free_port()}/closed?sig={LEAK}")
    tokens = (str(unknown), LEAK, f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.{LEAK}")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        shop = Shop(program, session)
        await wait_until(shop.is_served, "served", 60)
        assert await shop.post([f"ftp://user:{LEAK}@a.bc/", f"http://[::1]/?{LEAK}"]) is None
        for request_id in (await shop.post(urls, webhook), await shop.post_csv(urls[1], hook)):
            assert request_id
            await wait_until(partial(shop.is_told, request_id), "told")
        await shop.call("POST", "/api/webhooks/test", json=webhook)
        await shop.call("GET", f"/nowhere?token={LEAK}")
        await shop.call("GET", "/api/requests", params={"cursor": LEAK})
        for token in tokens:
            refused = {"Authorization": f"Bearer {token}"}
            await shop.call("GET", "/api/requests", headers=refused)
        for text in MALFORMED:
            await raw(program.port, text.encode())
    log = await program.stop()
    told = {json.loads(line)["event"] for line in log.splitlines()}
    assert told > {"image.uploaded", "image.failed", "webhook.delivered", "http.malformed"}
    assert_clean(log, WHSEC, OWN_WHSEC, str(key), str(unknown))


async def test_nor_when_the_servers_are_away(serve: Any) -> None:
    """What cannot be reached is told without the password to it."""
    program: Program = serve(
        MONGO_URI=f"mongodb://user:{LEAK}@127.0.0.1:{free_port()}/?authSource=admin",
        REDIS_PORT=str(free_port()),
        IMGSVC_REDIS__PASSWORD=LEAK,
        IMGSVC_MONGO__TIMEOUT_MS="200",
    )

    async def waits() -> bool:
        return program.log.read_text().count("service.waiting") > 1

    await wait_until(waits, "it waits for its servers", 60)
    assert_clean(await program.stop())


async def test_nor_when_the_start_is_refused(serve: Any) -> None:
    programs = [
        serve(STORAGE_EMULATOR_HOST="", **wrong)
        for wrong in (
            {"GCP_KEY_BASE64": LEAK},
            {"MONGO_URI": f"nonsense://user:{LEAK}@db/"},
            {"IMGSVC_WEBHOOK__SECRETS": f'["{LEAK}"]'},
            {"IMGSVC_REDIS__PASSWORD": LEAK, "IMGSVC_REDIS__TLS": "perhaps"},
        )
    ]
    for program in programs:
        assert await asyncio.to_thread(program.process.wait, 60) != 0
        assert_clean(program.log.read_text())


def assert_clean(log: str, *more: str) -> None:
    """There is a log, and no secret in it."""
    assert log
    for secret in (LEAK, *more):
        found = [line[:600] for line in log.splitlines() if secret in line]
        assert found == [], f"{len(found)} lines hold {secret}"
