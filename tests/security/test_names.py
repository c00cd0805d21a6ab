"""What name servers answer is not believed."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.outbound.guard import Guard
from imgsvc.outbound.resolver import Resolver
from imgsvc.runtime.settings import Net
from tests.name_server import NameServer
from tests.security.conftest import Open
from tests.security.test_urls import nowhere
from tests.support import Listener, Origin

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
        ["fe80::1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [PUBLIC, "2606:4700::1111", "::1"],
        [*[PUBLIC] * 8, "127.0.0.1"],  # beyond those that would be dialled
        ["inside.example"],  # an alias
    ],
    ids=",".join,
)
async def test_one_bad_answer_refuses_the_name(
    outbound: Open, listener: Listener, name_server: NameServer, answers: list[str]
) -> None:
    name_server.answers = lambda name: ["127.0.0.1"] if name == "inside.example" else answers
    client = outbound({"ports": [80, listener.port]})
    with pytest.raises(ServiceError) as refused:
        await client.download(f"http://pictures.example/{listener.port}", nowhere)
    assert refused.value.code is ErrorCode.URL_BLOCKED
    assert refused.value.detail == ErrorCode.URL_BLOCKED.message
    assert name_server.asked == ["pictures.example"]
    assert listener.connections == 0


async def test_a_name_that_changes_its_mind_is_refused(
    outbound: Open, origin: Origin, listener: Listener, name_server: NameServer
) -> None:
    """Rebinding: the address was good when the name was first asked for."""
    name_server.answers = lambda _: ["127.0.0.1"]
    client = outbound({"allow": ["127.0.0.1/32"]})

    async def close(_: web.Request) -> web.Response:
        return web.Response(body=b"picture", headers={"Connection": "close"})

    origin.add("a", close)
    url = origin.url("a").replace("127.0.0.1", "pictures.example")
    downloaded = await client.download(url, _drop)
    assert downloaded
    assert downloaded.bytes == 7
    for answer in (["127.8.9.10"], ["127.0.0.1", "127.8.9.10"]):
        name_server.answers = lambda _, answer=answer: answer  # type: ignore[misc]
        with pytest.raises(ServiceError) as refused:
            await client.download(url.replace(url.split(":")[2], f"{listener.port}/a"), nowhere)
        assert refused.value.code is ErrorCode.URL_BLOCKED
    assert len(name_server.asked) == 3
    assert listener.connections == 0


async def _drop(_: bytes) -> None:
    pass


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_the_socket_refuses_what_the_resolver_let_through(
    outbound: Open,
    listener: Listener,
    name_server: NameServer,
    address: str,
) -> None:
    """Rebinding between the check and the dial: each layer holds without the other."""
    name_server.answers = lambda _: [address]
    client = outbound({"ports": [listener.port]})
    client._resolver._guard = Guard(Net.model_validate({"allow": ["0.0.0.0/0", "::/0"]}))
    with pytest.raises(ServiceError) as refused:
        await client.download(f"http://pictures.example:{listener.port}/", nowhere)
    assert refused.value.code is ErrorCode.URL_BLOCKED
    assert listener.connections == 0


@pytest.mark.parametrize("resolver_allows", [(), ("127.0.0.0/8",)])
async def test_a_redirect_is_judged_by_where_it_leads_not_by_its_text(
    outbound: Open, listener: Listener, name_server: NameServer, resolver_allows: tuple[str, ...]
) -> None:
    """Nothing is wrong with the name that it names; the socket refuses without the resolver, too."""
    name_server.answers = lambda _: ["127.0.0.1"]
    client = outbound({"allow": ["127.9.9.9/32"], "ports": [80, listener.port]})
    if resolver_allows:
        client._resolver._guard = Guard(Net.model_validate({"allow": resolver_allows}))
    head = f"HTTP/1.1 302 Found\r\nLocation: http://pictures.example:{listener.port}/\r\n\r\n"

    async def away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode())
        writer.close()

    async with await asyncio.start_server(away, "127.9.9.9", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ServiceError) as refused:
            await client.download(f"http://127.9.9.9:{port}/", nowhere)
    assert refused.value.code is ErrorCode.URL_BLOCKED
    assert "pictures.example" in name_server.asked
    assert listener.connections == 0


@pytest.mark.parametrize(
    "location",
    [
        "http://u:p@127.0.0.1:PORT/",
        "http://127.1:PORT/",
        "http://2130706433:PORT/",
        "//@127.0.0.1:PORT/",
    ],
)
async def test_a_redirect_is_judged_by_its_text_too(
    outbound: Open, origin: Origin, listener: Listener, location: str
) -> None:
    """The address may be dialled, but is written so that the next reader may take it otherwise."""

    async def away(_: web.Request) -> web.Response:
        there = location.replace("PORT", str(listener.port))
        return web.Response(status=302, headers={"Location": there})

    with pytest.raises(ServiceError) as refused:
        await outbound({"allow": ["127.0.0.0/8"]}).download(origin.add("a", away), nowhere)
    assert refused.value.code is ErrorCode.URL_INVALID
    assert listener.connections == 0


async def test_at_most_eight_answers_are_dialled(name_server: NameServer) -> None:
    many = [f"1.1.1.{n}" for n in range(1, 20)]
    name_server.answers = lambda _: many
    net = Net(nameservers=(name_server.address,))
    resolver = Resolver(Guard(net), net)
    found = await resolver.resolve("pictures.example", 80)
    assert len({answer["host"] for answer in found} & set(many)) == 8
    await resolver.close()


async def test_no_name_is_asked_for_that_could_not_be_fetched_from(
    outbound: Open, name_server: NameServer
) -> None:
    name_server.answers = lambda _: [PUBLIC]
    for url in ("http://redis/", "http://db.internal/", "http://example.com:22/"):
        with pytest.raises(ServiceError):
            await outbound().download(url, nowhere)
    assert name_server.asked == []
