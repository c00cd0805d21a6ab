"""Small objects are made without the library, exactly as it makes them, or left to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import requests
from aiohttp import web
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials

from imgsvc.demo.loopback import serving
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.runtime.settings import Gcs, Settings
from imgsvc.storage.bucket import Bucket
from imgsvc.storage.objects import NewObject, Stored
from imgsvc.storage.small_uploads import SmallUploads

NAME = "request/0 ä.jpg"


@pytest.fixture
def gcs(make_settings: Callable[..., Settings]) -> Gcs:
    return make_settings(gcs={"retry_s": 0.5, "timeout_s": 2}).gcs


@pytest.fixture
async def bucket(gcs: Gcs) -> AsyncIterator[Bucket]:
    made = Bucket(gcs)
    await made.ensure()
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def uploads(
    gcs: Gcs, session: requests.Session | None = None, endpoint: str | None = None
) -> AsyncIterator[SmallUploads]:
    made = SmallUploads(session or requests.Session(), endpoint or str(gcs.emulator_host), gcs)
    yield made
    await made.close()


@pytest.fixture
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "result"
    path.write_bytes(b"\r\n--picture" * getattr(request, "param", 1))
    return path


def new(file: Path, name: str = NAME, note: str = "encoded") -> NewObject:
    return NewObject(name, file, "image/jpeg", note)


async def described(gcs: Gcs, name: str) -> dict[str, object]:
    """What the bucket serves under a name, and how."""
    url = f"{gcs.emulator_host}/storage/v1/b/{gcs.bucket}/o"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        objects = (await response.json())["items"]
    (found,) = [item for item in objects if item["name"] == name]
    keys = ("size", "md5Hash", "crc32c", "contentType", "cacheControl", "metadata", "storageClass")
    return {key: found[key] for key in keys}


@pytest.mark.parametrize("file", [1, 150_000], indirect=True, ids=["at once", "in pieces"])
async def test_it_is_as_the_library_makes_it(gcs: Gcs, bucket: Bucket, file: Path) -> None:
    by_library = bucket._create(new(file, "by-library"))
    async with uploads(gcs) as small:
        told = await small.create(new(file))
    assert told == by_library
    assert await described(gcs, NAME) == await described(gcs, "by-library")


async def test_what_is_there_already_is_left_to_the_library(
    gcs: Gcs, bucket: Bucket, file: Path
) -> None:
    await bucket.create(NAME, file, "image/jpeg", "encoded")
    async with uploads(gcs) as small:
        assert await small.create(new(file, note="again")) is None
    found = await described(gcs, NAME)
    assert found["metadata"] == {"imgsvc-note": "encoded"}


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("size_bytes", "small"), [(1_000_001, True), (4_000_000, True), (4_000_001, False)]
)
async def test_a_large_file_is_left_to_the_library(
    gcs: Gcs, tmp_path: Path, size_bytes: int, *, small: bool
) -> None:
    with (tmp_path / "file").open("wb") as out:
        out.truncate(size_bytes)
    async with uploads(gcs) as made:
        told = await made.create(new(tmp_path / "file"))
    assert bool(told) == small


async def test_a_bucket_that_is_away_is_left_to_the_library(
    gcs: Gcs, bucket: Bucket, servers: EmbeddedServers, file: Path
) -> None:
    servers.gcs.kill()
    try:
        async with uploads(gcs) as small:
            assert await small.create(new(file)) is None
    finally:
        await servers.gcs.start()
    await bucket.check()


@pytest.mark.parametrize(("minutes", "sent"), [(60, ["Bearer of-the-account"]), (-60, [])])
async def test_the_librarys_token_is_sent_unless_it_is_too_old(
    gcs: Gcs, file: Path, minutes: int, sent: list[str]
) -> None:
    seen = []

    async def receive(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request.headers["Authorization"])
        return web.json_response({"size": "11", "crc32c": "AAAAAA=="})

    expiry = (datetime.now(UTC) + timedelta(minutes=minutes)).replace(tzinfo=None)
    session = AuthorizedSession(Credentials(token="of-the-account", expiry=expiry))
    async with serving(receive) as url, uploads(gcs, session, url.rstrip("/")) as small:
        told = await small.create(new(file))
    assert seen == sent
    assert told == (Stored(11, "AAAAAA==") if sent else None)
