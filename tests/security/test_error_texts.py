"""What libraries say of an error holds what they were given; the log holds the error and not that."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import aiohttp
import google.auth.transport.requests
import pymongo
import pymongo.errors
import pytest
import redis.asyncio
import requests
import structlog
import urllib3
from aiohttp import web
from google.oauth2 import service_account
from pydantic import BaseModel, ValidationError

from imgsvc.domain.errors import ServiceError
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.runtime import logs, redaction
from imgsvc.runtime.settings import Gcs, Log
from imgsvc.storage.bucket import Bucket
from tests.accounts import new_account
from tests.conftest import free_port
from tests.support import Server

LEAK = "LEAKED"
SIGNED = (
    f"/object?X-Goog-Credential=imgsvc%40{LEAK}&X-Goog-Signature={LEAK}",
    f"/object?X-Amz-Security-Token={LEAK}&X-Amz-Signature={LEAK}",
    f"/object?sv=2024&sig={LEAK}",
    f"/object?token={LEAK}",
    f"/object?{LEAK}",
    f"/upload?uploadType=resumable&upload_id={LEAK}",
)


class Peer(Server):
    """Answers as badly as servers do."""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        match request.match_info["path"]:
            case "token":
                return web.json_response({"refresh_token": LEAK, "id_token": LEAK})
            case path if path.startswith("upload/storage"):
                closed = f"http://127.0.0.1:{free_port()}/{path}"
                sent_on = f"{closed}?uploadType=resumable&upload_id={LEAK}"
                return web.Response(headers={"Location": sent_on})
        return web.json_response({"error": {"message": f"upload_id={LEAK}"}}, status=403)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as running:
        yield running


@pytest.fixture
def log() -> Iterator[StringIO]:
    """All that is logged, as JSON."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    out = StringIO()
    with redirect_stdout(out):
        logs.configure(Log(format="json"))
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


def told(error: BaseException, log: StringIO) -> None:
    """The error is told in every way that there is: by class, and without what is secret."""
    assert LEAK in f"{error}{error!r}{error.__cause__}{error.__context__}", "the test shows nothing"
    for format_ in ("json", "console"):
        with redirect_stdout(log):
            logs.configure(Log(format=format_))
        ours, theirs = logs.get(f"mine.{format_}"), logging.getLogger("library")
        ours.warning("away", cause=redaction.of_error(error))
        ours.error("failed", exc_info=error)
        theirs.warning("%s broke: %r", error, error)
        theirs.error("failed", exc_info=error)
    text = log.getvalue()
    assert text.count(type(error).__name__) > 5
    assert [line[:900] for line in text.splitlines() if LEAK in line] == []


async def raised(call: Callable[[], Any]) -> BaseException:
    """What a call raises, in a thread or on the loop."""
    try:
        result = await asyncio.to_thread(call)
        if isinstance(result, Awaitable):
            await result
    except Exception as error:  # noqa: BLE001 - of any library
        return error
    pytest.fail("nothing was raised")


@pytest.mark.parametrize("path", SIGNED)
async def test_of_requests_and_urllib3(log: StringIO, peer: Peer, path: str) -> None:
    closed = f"http://127.0.0.1:{free_port()}{path}"

    def refused() -> None:
        requests.get(peer.base + path, timeout=5).raise_for_status()

    def retried() -> None:
        urllib3.PoolManager().request("GET", closed, retries=1)

    for call in (refused, retried, lambda: requests.get(closed, timeout=5)):
        told(await raised(call), log)


@pytest.mark.parametrize("name", ["user:LEAKED", "user:LE/LEAKED", "user:a@LEAKED"])
async def test_of_proxies(log: StringIO, name: str) -> None:
    proxy = f"http://{name}@127.0.0.1:{free_port()}"
    error = await raised(
        lambda: requests.get("http://127.0.0.1:9/", proxies={"http": proxy}, timeout=1)
    )
    told(ValueError(f"{proxy}: {error}"), log)


@pytest.mark.parametrize("path", SIGNED)
async def test_of_aiohttp(log: StringIO, peer: Peer, path: str) -> None:
    async def refused() -> None:
        async with aiohttp.ClientSession() as session, session.get(peer.base + path) as response:
            response.raise_for_status()

    async def invalid() -> None:
        async with aiohttp.ClientSession() as session, session.get(f"http://:{LEAK}@{path}"):
            pass

    for call in (refused, invalid):
        told(await raised(call), log)


async def test_of_what_is_no_http(log: StringIO) -> None:
    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nSet Cookie: {LEAK}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def read() -> None:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/"):
            pass

    async with server:
        told(await raised(read), log)


async def test_of_the_bucket(log: StringIO, peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(9_000_000))
    gcs = Gcs(bucket="any", emulator_host=peer.base, retry_s=0.2, timeout_s=5)
    bucket = Bucket(gcs)
    with pytest.raises(ServiceError) as caught:
        await bucket.create("r/0-0.jpg", path, "image/jpeg", "")
    assert caught.value.__cause__
    told(caught.value.__cause__, log)
    with pytest.raises(ServiceError) as caught:
        await bucket.check()
    assert caught.value.__cause__
    told(caught.value.__cause__, log)
    await bucket.close()


async def test_of_googles_tokens(log: StringIO, peer: Peer) -> None:
    account = new_account(f"{peer.base}/token").info
    credentials = service_account.Credentials.from_service_account_info(account, scopes=["x"])
    request = google.auth.transport.requests.Request()
    told(await raised(lambda: credentials.refresh(request)), log)


async def test_of_redis(log: StringIO, servers: EmbeddedServers) -> None:
    url = f"redis://user:{LEAK}/with@slash@127.0.0.1:{servers.endpoints.redis_port}/0"
    client = redis.asyncio.Redis(port=servers.endpoints.redis_port)

    async def piped() -> None:
        await client.pipeline().execute_command("SET", "one", LEAK, "NONSENSE").execute()

    calls = (
        # As of a server that knows no HELLO: the password is among the arguments.
        lambda: client.execute_command("HELO", "3", "AUTH", "default", LEAK),
        piped,
        lambda: redis.asyncio.Redis.from_url(f"{url}?socket_timeout={LEAK}"),
    )
    for call in calls:
        told(await raised(call), log)
    told(ConnectionError(f"Error connecting to {url}"), log)
    await client.aclose()


async def test_of_mongodb(log: StringIO, servers: EmbeddedServers) -> None:
    secret = {"_id": 1, "webhook": {"headers": {"X-Key": LEAK}, "secret": LEAK}}
    client: pymongo.MongoClient[Any] = pymongo.MongoClient(servers.endpoints.mongo_uri)
    things = client["error-texts"]["things"]

    def twice() -> None:
        things.insert_many([secret])

    things.insert_one(secret)
    calls = (
        twice,
        lambda: things.insert_one({"value": Secret()}),
        lambda: pymongo.MongoClient(f"mongodb://user:{LEAK}/x@host/"),
        lambda: pymongo.MongoClient(f"mongodb://user:x@host/?password={LEAK}&appname={LEAK * 99}"),
    )
    for call in calls:
        error = await raised(call)
        if LEAK in f"{error!r}{error.__context__!r}":  # it may have been careful itself
            told(error, log)
    client.drop_database("error-texts")
    client.close()


class Secret:
    def __repr__(self) -> str:
        return f"Secret({LEAK})"


async def test_of_pydantic(log: StringIO) -> None:
    class Form(BaseModel):
        number: int

    with pytest.raises(ValidationError) as caught:
        Form.model_validate({"number": LEAK, "other": f"it's {LEAK}"})
    told(caught.value, log)
    with pytest.raises(ValidationError) as caught:
        Form.model_validate(f'"{LEAK}\n')
    told(caught.value, log)


TEXTS = [
    "{'access_token': 'LEAKED', 'expires_in': 1}",
    '{"refresh_token": "LEAKED"}',
    "Authorization: Bearer LEAKED",
    "headers {'Proxy-Authorization': 'Basic LEAKED'}",
    "Set-Cookie: a=b; session=LEAKED",
    "client_secret=LEAKED&code=1",
    "bad signature=LEAKED in x",
    "https%3A%2F%2Fx%2F%3Fsig%3DLEAKED",
    "refused: rediss://:LE@LEAKED@host:6379/0",
    "ya29.LEAKED",
    "cannot load -----BEGIN PRIVATE KEY-----\nLEAKED\n-----END PRIVATE KEY-----",
]


@pytest.mark.parametrize("text", TEXTS)
def test_of_anything(text: str, log: StringIO) -> None:
    told(RuntimeError(text), log)


def test_what_is_long_is_cut_and_searched_in_no_time(log: StringIO) -> None:
    for word in (
        "/",
        "a",
        "b'",
        "token=",
        "http://",
        "x://",
        "?",
        "'",
        base64.b64encode(bytes(99)),
    ):
        error = ValueError(f"{str(word) * (200_000 // len(word))} {LEAK}")
        began = time.perf_counter()
        short = redaction.of_error(error)
        told(error, log)
        assert time.perf_counter() - began < 2
        assert short
        assert len(short) < 600
    longest = max(len(line) for line in log.getvalue().splitlines())
    assert longest < 60_000
    for line in log.getvalue().splitlines():
        if line.startswith("{"):
            json.loads(line)
