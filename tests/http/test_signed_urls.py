"""Signed addresses are arithmetic: right to the bit, and made while the bucket hangs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from pydantic import SecretStr
from yarl import URL

from imgsvc.embedded.servers import EmbeddedServers
from imgsvc.runtime.settings import Settings
from tests.accounts import EMAIL, Account, new_account
from tests.integration.proxy import between
from tests.support import Origin, Server, Service

AT_ONCE_S = 5.0


class Tokens(Server):
    """Hands out tokens for an account's key, as Google does."""

    async def _answer(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"access_token": "a-token", "expires_in": 3600})


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    async with Tokens() as tokens:
        yield new_account(f"{tokens.base}/token")


def is_signed(url: str, account: Account) -> None:
    """Check a signature as Google does (V4 signing process, "signed URL canonical requests")."""
    signed = URL(url, encoded=True)
    query = dict(pair.split("=", 1) for pair in signed.raw_query_string.split("&"))
    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    port = f":{signed.explicit_port}" if signed.explicit_port else ""
    canonical = "\n".join(
        (
            "GET",
            signed.raw_path,
            "&".join(f"{name}={query[name]}" for name in sorted(query)),
            f"host:{signed.host}{port}",
            "",
            "host",
            "UNSIGNED-PAYLOAD",
        )
    )
    scope = URL.build(query_string=query["X-Goog-Credential"], encoded=True).query_string
    assert scope.startswith(f"{EMAIL}/")
    to_sign = "\n".join(
        (
            "GOOG4-RSA-SHA256",
            query["X-Goog-Date"],
            scope.partition("/")[2],
            hashlib.sha256(canonical.encode()).hexdigest(),
        )
    )
    account.public_key.verify(signature, to_sign.encode(), padding.PKCS1v15(), hashes.SHA256())


async def test_pages_and_reports_are_signed_while_the_bucket_hangs(
    start_service: Callable[..., Awaitable[Service]],
    make_settings: Callable[..., Settings],
    servers: EmbeddedServers,
    origin: Origin,
    account: Account,
) -> None:
    settings = make_settings()
    async with between(servers.gcs.port) as proxy:
        changed = {
            "emulator_host": f"http://127.0.0.1:{proxy.port}",
            "key_base64": SecretStr(account.key_base64),
            "signed_urls": True,
            "threads": 1,
            "timeout_s": 600.0,
        }
        gcs = settings.gcs.model_copy(update=changed)
        service = await start_service(settings.model_copy(update={"gcs": gcs}))
        kept, erased = [await service.upload([[origin.url("rocket.jpg")] * 3]) for _ in "ab"]
        for request_id in (kept, erased):
            assert (await service.finished(request_id))["status"] == "COMPLETED"
        proxy.hold = f"prefix={erased}".encode()
        await service.delete(f"/api/requests/{erased}")
        await proxy.held.wait()  # the only thread there is waits for the bucket
        async with asyncio.timeout(AT_ONCE_S):
            images: list[dict[str, Any]] = await service.images(kept)
            (line,) = await service.report(kept)
        reported = line["Output Image URLs"].split(", ")
        assert len(images) == len(reported) == 3
        for url in [*reported, *(image["outputUrl"] for image in images)]:
            assert URL(url).path.endswith(f"/{kept}/0-0.jpg")
            is_signed(url, account)
        proxy.release()
