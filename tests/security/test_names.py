"""What name servers answer is not believed."""

from __future__ import annotations

import pytest
from aiohttp import web

from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.guard import Guard
from imgsvc.resolver import Resolver
from imgsvc.settings import Net
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
