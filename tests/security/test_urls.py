"""No address of the table is connected to, by whichever way it comes in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.outbound.guard import Guard
from imgsvc.runtime.settings import Net, Settings
from tests.name_server import NameServer
from tests.security.conftest import Open
from tests.security.urls import REFUSED
from tests.support import Listener, Receiver

CLASSES = pytest.mark.parametrize("trick", REFUSED)
URL_START = re.compile(r"https?://[^/?#]", re.IGNORECASE)
NOT_FOLLOWED = {
    ErrorCode.URL_BLOCKED,
    ErrorCode.URL_INVALID,
    ErrorCode.FETCH_STATUS,
    ErrorCode.CONNECT_FAILED,  # the header is none
    ErrorCode.DNS_FAILED,  # nobody is asked about .onion (RFC 7686)
}


async def nowhere(_: bytes) -> None:
    raise AssertionError("something was fetched")


def urls(trick: str, port: int) -> list[str]:
    _, texts = REFUSED[trick]
    return [text.replace("PORT", str(port)) for text in texts]


def test_the_table_is_as_large_as_promised() -> None:
    assert len(REFUSED) >= 25
    assert len({url for _, texts in REFUSED.values() for url in texts}) >= 150


@CLASSES
async def test_no_address_is_fetched_from_or_posted_to(
    outbound: Open, listener: Listener, trick: str
) -> None:
    # The port is no reason to refuse.
    client = outbound({"ports": [80, 443, 8080, 8443, listener.port]})
    expected, _ = REFUSED[trick]
    for url in urls(trick, listener.port):
        with pytest.raises(ServiceError) as fetched:
            await client.download(url, nowhere)
        with pytest.raises(ServiceError) as posted:
            await client.post(url, b"{}", {}, 5)
        assert (fetched.value.code, posted.value.code) == (expected, expected), url
    assert listener.connections == 0


async def test_the_listener_would_have_noticed(outbound: Open, listener: Listener) -> None:
    client = outbound({"allow": ["127.0.0.0/8", "::1/128"]})
    for host in ("127.0.0.1", "[::1]", "localhost"):
        before = listener.connections
        with pytest.raises(ServiceError):
            await client.download(f"http://{host}:{listener.port}/", nowhere)
        assert listener.connections > before


@CLASSES
async def test_no_address_is_redirected_to(
    outbound: Open,
    listener: Listener,
    name_server: NameServer,
    trick: str,
) -> None:
    """An origin that may be fetched from sends the service on; every name leads to the listener."""
    name_server.answers = lambda _: ["127.0.0.1"]
    client = outbound({"allow": ["127.9.9.9/32"], "ports": [80, 443, listener.port]})
    for location in urls(trick, listener.port):
        if not URL_START.match(location) or "\n" in location:
            continue  # relative to the origin, or no header at all

        async def away(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            location: str = location,
        ) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
            writer.write(head.encode())
            writer.close()

        async with await asyncio.start_server(away, "127.9.9.9", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ServiceError) as refused:
                await client.download(f"http://127.9.9.9:{port}/", nowhere)
        assert refused.value.code in NOT_FOLLOWED, location
    assert listener.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_webhooks_are_not_redirected_at_all(
    outbound: Open, receiver: Receiver, listener: Listener, status: int
) -> None:
    async def away(_: web.Request) -> web.Response:
        location = f"http://127.0.0.1:{listener.port}/"
        return web.Response(status=status, headers={"Location": location})

    receiver.script = [away]
    client = outbound({"allow": ["127.0.0.0/8"]})  # the listener is, too
    assert (await client.post(receiver.url, b"{}", {}, 5)).status == status
    assert listener.connections == 0


async def test_uploads_are_refused_for_each_of_them(
    start_service: Callable[..., Any], make_settings: Callable[..., Settings]
) -> None:
    net = Net(ports=(80, 443, 8080, 8443, 9000))  # nothing is exempt, as beyond the tests
    service = await start_service(make_settings().model_copy(update={"net": net}))
    for trick in REFUSED:
        found = urls(trick, 9000)
        products = [{"serialNumber": "1", "productName": "x", "inputUrls": [url]} for url in found]
        status, problem = await service.post("/api/upload", json={"products": products})
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED")
        places = {tuple(error["loc"]) for error in problem["errors"]}
        assert places >= {("products", i, "inputUrls", 0) for i in range(len(found))}, trick
        hook = {"products": products_of("http://example.com/a.jpg"), "webhookUrl": found[-1]}
        status, problem = await service.post("/api/upload", json=hook)
        assert (status, problem["errors"][0]["loc"]) == (422, ["webhookUrl"]), found[-1]


def products_of(url: str) -> list[dict[str, Any]]:
    return [{"serialNumber": "1", "productName": "x", "inputUrls": [url]}]


@pytest.mark.parametrize(
    "url",
    [
        "http://1.1.1.1/",
        "http://172.15.255.255/",
        "http://172.32.0.0/",
        "http://100.63.255.255/",
        "http://100.128.0.0/",
        "https://[2606:4700::1111]:8443/",
        "http://[::ffff:1.1.1.1]/",
        "HTTPS://EXAMPLE.com:8080/a%20b?q=ä@ö:#f@g",
        "http://example.com./",
        "http://example.com:080/",
        "http://a_b.example.com/",
        "http://bücher.example.com/",
        "http://xn--bcher-kva.example.com/",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "http://example.com#@127.0.0.1/",
        "http://example.com?@127.0.0.1/",
        "http://example.com".ljust(8192, "/"),
    ],
)
def test_public_addresses_pass(url: str) -> None:
    assert Guard(Net()).parse(url).raw_host
