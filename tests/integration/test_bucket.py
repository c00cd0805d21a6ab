"""The bucket: an object is made once, and whoever comes later adopts it."""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import google_crc32c
import pytest
from yarl import URL

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.runtime.settings import Gcs, Settings, SettingsError
from imgsvc.storage.bucket import Bucket
from imgsvc.storage.objects import Stored
from tests.accounts import EMAIL, new_account
from tests.integration.proxy import between

NAME = "request/0-1.jpg"


def checksum(body: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(body).digest()).decode()


@pytest.fixture
async def make(make_settings: Callable[..., Settings]) -> AsyncIterator[Callable[..., Bucket]]:
    """Makes buckets: another name is another bucket, another emulator another way to it."""
    made: list[Bucket] = []

    def bucket(**gcs: Any) -> Bucket:
        settings = make_settings(gcs={"retry_s": 0.5, "timeout_s": 2}).gcs
        made.append(Bucket(Gcs.model_validate({**settings.model_dump(), **gcs})))
        return made[-1]

    yield bucket
    for each in made:
        await each.close()


@pytest.fixture
async def bucket(make: Callable[..., Bucket]) -> Bucket:
    made = make()
    await made.ensure()
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "result"
    path.write_bytes(b"picture")
    return path


async def stored(bucket: Bucket, path: Path, note: str = "encoded") -> Stored:
    return await bucket.create(NAME, path, "image/jpeg", note)


async def served(bucket: Bucket) -> bytes:
    """The body of the object at its public address."""
    (url,) = await bucket.urls([NAME])
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.read()


async def described(bucket: Bucket) -> dict[str, Any]:
    """The object as Google's JSON API describes it."""
    settings = bucket._settings
    path = f"/storage/v1/b/{settings.bucket}/o/{urllib.parse.quote(NAME, safe='')}"
    url = URL(f"{settings.emulator_host}{path}", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


async def is_away(call: Awaitable[Any]) -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.retry_after_s


async def test_an_object_is_stored_as_it_is_to_be_served(bucket: Bucket, file: Path) -> None:
    assert await stored(bucket, file) == Stored(7, checksum(b"picture"))
    assert await served(bucket) == b"picture"
    found = await described(bucket)
    assert found["contentType"] == "image/jpeg"
    assert found["cacheControl"] == "public, max-age=31536000, immutable"
    assert found["metadata"] == {"imgsvc-note": "encoded"}


async def test_a_second_object_of_a_name_is_not_made_but_the_first_adopted(
    bucket: Bucket, file: Path, tmp_path: Path
) -> None:
    await stored(bucket, file)
    later = tmp_path / "later"
    later.write_bytes(b"another picture")
    assert await stored(bucket, later, "original") == Stored(7, checksum(b"picture"))
    assert await served(bucket) == b"picture"
    assert (await described(bucket))["metadata"] == {"imgsvc-note": "encoded"}


async def test_of_many_at_once_one_makes_the_object_and_all_adopt_it(
    bucket: Bucket, tmp_path: Path
) -> None:
    paths = [tmp_path / str(n) for n in range(8)]
    for n, path in enumerate(paths):
        path.write_bytes(b"x" * n)
    answers = await asyncio.gather(*(stored(bucket, path) for path in paths))
    body = await served(bucket)
    assert set(answers) == {Stored(len(body), checksum(body))}


async def test_an_object_whose_acknowledgement_was_lost_is_adopted(
    make: Callable[..., Bucket], bucket: Bucket, servers: EmbeddedServers, file: Path
) -> None:
    async with between(servers.gcs.port) as proxy:
        far = make(emulator_host=f"http://127.0.0.1:{proxy.port}", retry_s=10)
        await far.check()
        proxy.lose_reply_to = b"picture"
        assert await stored(far, file) == Stored(7, checksum(b"picture"))
        assert proxy.lost.is_set()
    assert await served(bucket) == b"picture"


async def test_the_proxy_of_the_environment_is_used(
    make: Callable[..., Bucket],
    bucket: Bucket,
    servers: EmbeddedServers,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with between(servers.gcs.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        behind = make(retry_s=10)
        proxy.lose_reply_to = b"picture"
        await stored(behind, file)
        assert proxy.lost.is_set()
    assert await served(bucket) == b"picture"


async def test_a_large_object_arrives_whole(bucket: Bucket, tmp_path: Path) -> None:
    body = bytes(range(256)) * 40_000  # more than the library sends in one piece
    path = tmp_path / "large"
    path.write_bytes(body)
    assert await stored(bucket, path) == Stored(len(body), checksum(body))
    assert await served(bucket) == body


async def test_a_file_that_is_gone_is_told_apart_from_a_bucket_that_is(
    bucket: Bucket, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await stored(bucket, tmp_path / "gone")


async def test_a_missing_bucket_is_the_operators_business(
    make: Callable[..., Bucket], file: Path
) -> None:
    missing = make(bucket="nobody-made-this")
    await is_away(stored(missing, file))
    await is_away(missing.check())


async def test_while_the_bucket_is_away_all_say_so_and_then_go_on(
    bucket: Bucket, servers: EmbeddedServers, file: Path
) -> None:
    servers.gcs.kill()
    try:
        async with asyncio.timeout(10):
            await asyncio.gather(is_away(stored(bucket, file)), is_away(bucket.check()))
    finally:
        await servers.gcs.start()
    await bucket.check()
    assert await stored(bucket, file) == Stored(7, checksum(b"picture"))


async def test_a_bucket_that_hangs_is_away(
    make: Callable[..., Bucket], servers: EmbeddedServers, file: Path
) -> None:
    async with between(servers.gcs.port) as proxy:
        far = make(emulator_host=f"http://127.0.0.1:{proxy.port}", timeout_s=0.3)
        proxy.hold = b"picture"
        async with asyncio.timeout(5):
            await is_away(stored(far, file))
        assert proxy.held.is_set()


async def test_making_a_bucket_that_is_there_does_nothing(bucket: Bucket, file: Path) -> None:
    await stored(bucket, file)
    await bucket.ensure()
    assert await served(bucket) == b"picture"


async def test_addresses_come_in_order_and_lead_to_where_the_operator_says(
    make: Callable[..., Bucket],
) -> None:
    behind_cdn = make(public_url="https://cdn.example.com/images/")
    assert await behind_cdn.urls(["r/1-0.jpg", "r/0 ä.png"]) == [
        "https://cdn.example.com/images/r/1-0.jpg",
        "https://cdn.example.com/images/r/0%20%C3%A4.png",
    ]


async def test_signed_addresses_name_the_account_and_end(
    make: Callable[..., Bucket], file: Path
) -> None:
    plain = make()
    await plain.ensure()
    await stored(plain, file)
    signing = make(key_base64=new_account().key_base64, signed_urls=True, signed_url_ttl_s=600)
    (address,) = await signing.urls([NAME])
    url = URL(address)
    assert url.path.endswith(f"/{NAME}")
    assert url.query["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"
    assert url.query["X-Goog-Expires"] == "600"
    assert url.query["X-Goog-Credential"].startswith(f"{EMAIL}/")
    assert len(bytes.fromhex(url.query["X-Goog-Signature"])) == 256


def test_signing_without_a_key_stops_the_start(make: Callable[..., Bucket]) -> None:
    with pytest.raises(SettingsError, match=r"gcs\.signed_urls.*GCP_KEY_BASE64"):
        make(signed_urls=True)


async def test_an_object_is_copied_with_what_it_says_of_itself(bucket: Bucket, file: Path) -> None:
    original = await bucket.create("before/0-0.jpg", file, "image/jpeg", "kept")
    assert await bucket.copy("before/0-0.jpg", NAME) == original
    assert await served(bucket) == b"picture"
    found = await described(bucket)
    assert (found["contentType"], found["metadata"]) == ("image/jpeg", {"imgsvc-note": "kept"})


async def test_nothing_is_copied_of_an_object_that_is_gone(bucket: Bucket) -> None:
    assert await bucket.copy("before/0-0.jpg", NAME) is None
