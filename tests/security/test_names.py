"""What name servers answer is not believed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web

from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.guard import Guard, Resolver
from imgsvc.settings import Net
from tests.security.conftest import Answers, Open
from tests.security.test_urls import nowhere
from tests.support import Listener, Origin, wait_until

NameServer = Callable[[Answers], list[str]]
PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["::1"],
        ["169.254.169.254"],
        ["0.0.0.0"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["fe80::1%lo"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [PUBLIC, "2606:4700::1111", "::1"],
        [*[PUBLIC] * 8, "127.0.0.1"],  # beyond those that would be dialled
    ],
    ids=",".join,
)
async def test_one_bad_answer_refuses_the_name(
    outbound: Open, listener: Listener, name_server: NameServer, answers: list[str]
) -> None:
    asked = name_server(lambda _: answers)
    client = outbound({"ports": [80, listener.port]})
    with pytest.raises(ServiceError) as refused:
        await client.download(f"http://pictures.example/{listener.port}", nowhere)
    assert refused.value.code is ErrorCode.URL_BLOCKED
    assert refused.value.detail == ErrorCode.URL_BLOCKED.message
    assert asked == ["pictures.example"]
    assert listener.connections == 0


async def test_a_name_that_changes_its_mind_is_refused(
    outbound: Open, origin: Origin, listener: Listener, name_server: NameServer
) -> None:
    """Rebinding: the address was good when the name was first asked for."""
    answers = iter([["127.0.0.1"], ["127.8.9.10"], ["127.0.0.1", "127.8.9.10"]])
    asked = name_server(lambda _: next(answers))
    client = outbound({"allow": ["127.0.0.1/32"]})

    async def close(_: web.Request) -> web.Response:
        return web.Response(body=b"picture", headers={"Connection": "close"})

    origin.add("a", close)
    url = origin.url("a").replace("127.0.0.1", "pictures.example")
    downloaded = await client.download(url, _drop)
    assert downloaded
    assert downloaded.bytes == 7
    for _ in range(2):
        client._session.connector.clear_dns_cache()  # type: ignore[union-attr]
        with pytest.raises(ServiceError) as refused:
            await client.download(url.replace(url.split(":")[2], f"{listener.port}/a"), nowhere)
        assert refused.value.code is ErrorCode.URL_BLOCKED
    assert len(asked) == 3
    assert listener.connections == 0


async def _drop(_: bytes) -> None:
    pass


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_the_socket_refuses_what_the_resolver_let_through(
    outbound: Open,
    listener: Listener,
    name_server: NameServer,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
) -> None:
    """Rebinding between the check and the dial: each layer holds without the other."""
    name_server(lambda _: [address])
    client = outbound({"ports": [listener.port]})

    async def unchecked(
        self: Resolver,  # noqa: ARG001
        host: str,
        port: int = 0,
        family: int = 0,
    ) -> list[aiohttp.abc.ResolveResult]:
        return await aiohttp.ThreadedResolver().resolve(host, port, family)  # type: ignore[arg-type]

    monkeypatch.setattr(Resolver, "resolve", unchecked)
    with pytest.raises(ServiceError) as refused:
        await client.download(f"http://pictures.example:{listener.port}/", nowhere)
    assert refused.value.code is ErrorCode.URL_BLOCKED
    assert listener.connections == 0


async def test_at_most_eight_answers_are_dialled(name_server: NameServer) -> None:
    many = [f"1.1.1.{n}" for n in range(1, 20)]
    name_server(lambda _: many)
    resolver = Resolver(Guard(Net()), 5)
    found = await resolver.resolve("pictures.example", 80)
    assert [answer["host"] for answer in found] == many[:8]
    await resolver.close()


async def test_no_name_is_asked_for_that_could_not_be_fetched_from(
    outbound: Open, name_server: NameServer
) -> None:
    asked = name_server(lambda _: [PUBLIC])
    for url in ("http://redis/", "http://db.internal/", "http://example.com:22/"):
        with pytest.raises(ServiceError):
            await outbound().download(url, nowhere)
    assert asked == []


async def test_name_servers_that_hang_hold_up_nobody(
    outbound: Open, name_server: NameServer
) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: str) -> list[str]:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return [PUBLIC]

    asked = name_server(hang)

    async def asked_by_all_threads() -> bool:
        return len(asked) >= 30

    client = outbound({"resolve_s": 0.5})
    started = time.monotonic()
    fetches = [
        asyncio.create_task(client.download(f"http://n{n}.example/", nowhere)) for n in range(40)
    ]
    try:
        await wait_until(asked_by_all_threads, "the names are asked for")
        # Files are written through these threads.
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "written"), 0.3) == "written"
        refused = await asyncio.gather(*fetches, return_exceptions=True)
    finally:
        release.set()
    assert {getattr(error, "code", error) for error in refused} == {ErrorCode.DNS_FAILED}
    assert time.monotonic() - started < 3
