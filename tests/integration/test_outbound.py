"""The way out: what must not be reached is not even dialled, and origins cannot hurt us."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging.identify import sniff
from imgsvc.outbound.client import Outbound
from imgsvc.outbound.guard import Guard
from imgsvc.runtime.settings import Fetch, Net
from tests.conftest import free_port
from tests.support import Listener, Origin, Receiver

LOOPBACK = ("127.0.0.0/8", "::1/128")
Open = Callable[..., Outbound]


@pytest.fixture
async def outbound() -> AsyncIterator[Open]:
    """Makes clients; those of ``Net`` settings come first, the rest limits a fetch."""
    async with contextlib.AsyncExitStack() as stack:

        def make(*, allow: tuple[str, ...] = LOOPBACK, net: Any = None, **fetch: Any) -> Outbound:
            settings = Net.model_validate({"allow": allow, **(net or {})})
            made = Outbound(settings, Fetch(**fetch), sniff)
            stack.push_async_callback(made.close)
            return made

        yield make


async def fetched(client: Outbound, url: str) -> bytes:
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    downloaded = await client.download(url, write)
    assert downloaded
    assert downloaded.bytes == sum(map(len, pieces))
    return b"".join(pieces)


async def refusal(client: Outbound, url: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await fetched(client, url)
    return caught.value


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[..., Any]:
    """A handler; ``Retry_After`` stands for ``Retry-After``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=named)

    return handle


# What may be reached.


async def test_refusals_do_not_tell_what_is_inside(outbound: Open) -> None:
    error = await refusal(outbound(allow=()), "http://10.1.2.3/")
    assert error.detail == ErrorCode.URL_BLOCKED.message


async def test_the_allow_list_opens_and_the_deny_list_closes(
    outbound: Open, origin: Origin
) -> None:
    url = origin.add("a", b"picture")
    assert await fetched(outbound(allow=("127.0.0.1/32",)), url) == b"picture"
    only_v6 = outbound(allow=("::1/128",))
    assert (await refusal(only_v6, url)).code is ErrorCode.URL_BLOCKED
    denied = outbound(net={"deny": ["127.0.0.1/32"]})
    assert (await refusal(denied, url)).code is ErrorCode.URL_BLOCKED
    assert origin.asked == ["a"]


def test_both_lists_see_through_mapped_addresses() -> None:
    mapped = "http://[::ffff:1.1.1.1]/", "http://[::ffff:10.0.0.1]:99/"
    Guard(Net.model_validate({"allow": ["10.0.0.0/8"]})).parse(mapped[1])
    Guard(Net()).parse(mapped[0])
    with pytest.raises(ServiceError, match="URL_BLOCKED"):
        Guard(Net.model_validate({"deny": ["1.1.1.1/32"]})).parse(mapped[0])


async def test_proxies_and_passwords_of_the_environment_are_not_used(
    outbound: Open,
    origin: Origin,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{listener.port}")
    seen = await headers_seen(outbound(), origin, origin.url("a"))
    assert listener.connections == 0
    assert "Authorization" not in seen


async def headers_seen(client: Outbound, origin: Origin, url: str) -> dict[str, str]:
    """Fetch ``url``; the headers with which ``a`` was asked for in the end."""
    seen: dict[str, str] = {}

    async def look(request: web.Request) -> web.Response:
        seen.update(request.headers)
        return web.Response(body=b"picture")

    origin.add("a", look)
    assert await fetched(client, url) == b"picture"
    return seen


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(outbound: Open, origin: Origin, status: int) -> None:
    origin.add("deep/b", b"picture")
    origin.add("a", answer(status, Location="deep/b"))
    origin.add("deep/a", answer(status, Location="../deep/b?x=1#f"))
    assert await fetched(outbound(), origin.url("a")) == b"picture"
    assert await fetched(outbound(), origin.url("deep/a")) == b"picture"


async def test_redirects_end_after_as_many_as_are_set(outbound: Open, origin: Origin) -> None:
    origin.add("2", answer(302, Location="/1"))
    origin.add("1", answer(302, Location="/0"))
    origin.add("0", b"picture")
    assert await fetched(outbound(max_redirects=2), origin.url("2")) == b"picture"
    error = await refusal(outbound(max_redirects=1), origin.url("2"))
    assert error.code is ErrorCode.TOO_MANY_REDIRECTS


async def test_a_redirect_loop_ends(outbound: Open, origin: Origin) -> None:
    url = origin.add("loop", answer(302, Location="/loop"))
    error = await refusal(outbound(max_redirects=4), url)
    assert error.code is ErrorCode.TOO_MANY_REDIRECTS
    assert origin.asked == ["loop"] * 5


async def test_nothing_said_on_the_way_is_carried_on(outbound: Open, origin: Origin) -> None:
    url = origin.add("start", answer(302, Location="/a", Set_Cookie="session=1; Path=/"))
    seen = await headers_seen(outbound(), origin, url)
    assert not {"Cookie", "Authorization", "Referer", "Proxy-Authorization"} & seen.keys()
    assert seen["Accept-Encoding"] == "identity"


# What origins send.


async def test_a_file_arrives_as_it_was_sent(outbound: Open, origin: Origin) -> None:
    body = bytes(range(256)) * 5000
    assert await fetched(outbound(), origin.add("a", body)) == body


async def chunked(request: web.Request, *, pieces: int, size: int = 1000) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(pieces):
        await response.write(b"x" * size)
    return response


async def test_the_limit_is_exact_with_and_without_a_content_length(
    outbound: Open, origin: Origin
) -> None:
    announced = origin.add("announced", b"x" * 3000)
    streamed = origin.add("streamed", lambda request: chunked(request, pieces=3))
    for url in (announced, streamed):
        assert len(await fetched(outbound(max_bytes=3000), url)) == 3000
        assert (await refusal(outbound(max_bytes=2999), url)).code is ErrorCode.TOO_LARGE


async def test_no_more_than_the_limit_is_written(outbound: Open, origin: Origin) -> None:
    written: list[bytes] = []

    async def write(piece: bytes) -> None:
        written.append(piece)

    origin.add("announced", b"x" * 2_000_000)
    origin.add("endless", lambda request: chunked(request, pieces=100_000))
    for name, most in (("announced", 0), ("endless", 1_000_000)):
        with pytest.raises(ServiceError):
            await outbound(max_bytes=1_000_000).download(origin.url(name), write)
        assert sum(map(len, written)) <= most


async def breaking_off(request: web.Request, headers: bytes) -> web.Response:
    assert request.transport
    request.transport.write(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n5\r\nhello\r\n")
    request.transport.close()
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "headers", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"]
)
async def test_a_transfer_that_breaks_off_is_truncated(
    outbound: Open, origin: Origin, headers: bytes
) -> None:
    url = origin.add("a", lambda request: breaking_off(request, headers))
    assert (await refusal(outbound(), url)).code is ErrorCode.FETCH_TRUNCATED


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-x\r\n", b"\x15\x03\x01\0\x02", b"HTTP/9.9 ok\r\n\r\n"]
)
async def test_what_is_not_http_looks_like_a_closed_port(outbound: Open, said: bytes) -> None:
    def answer_so(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    closed = await refusal(outbound(), f"http://127.0.0.1:{free_port()}/")
    async with await asyncio.start_server(answer_so, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for scheme in ("http", "https"):
            found = await refusal(outbound(), f"{scheme}://127.0.0.1:{port}/")
            assert (found.code, found.detail) == (closed.code, closed.detail)
    assert closed.code is ErrorCode.CONNECT_FAILED
    assert not re.search(r"\d", closed.detail)


async def test_what_says_nothing_looks_like_a_filtered_port(outbound: Open) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # who is beyond the backlog is never answered
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            client = outbound(net={"connect_s": 0.3}, silence_s=0.3)
            filtered = await refusal(client, f"http://127.0.0.1:{port}/")

    async def only_listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()

    async with await asyncio.start_server(only_listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        silent = await refusal(client, f"http://127.0.0.1:{port}/")
    assert (silent.code, silent.detail) == (filtered.code, filtered.detail)
    assert silent.code is ErrorCode.FETCH_TIMEOUT


@pytest.mark.parametrize("pieces", [0, 1])
async def test_silence_before_or_after_the_first_byte_times_out(
    outbound: Open, origin: Origin, pieces: int
) -> None:
    async def fall_silent(request: web.Request) -> web.StreamResponse:
        if pieces:
            await chunked(request, pieces=pieces)
        await asyncio.Event().wait()
        raise AssertionError

    started = time.monotonic()
    error = await refusal(outbound(silence_s=0.2), origin.add("a", fall_silent))
    assert error.code is ErrorCode.FETCH_TIMEOUT
    assert 0.15 < time.monotonic() - started < 2


async def test_an_endless_drip_is_cut_off(outbound: Open, origin: Origin) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.02)

    started = time.monotonic()
    error = await refusal(outbound(silence_s=5, total_s=0.4), origin.add("a", drip))
    assert error.code is ErrorCode.FETCH_TIMEOUT
    assert 0.35 < time.monotonic() - started < 2


async def dripping(request: web.Request, *, first: int = 0) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x" * first)
    while True:
        await response.write(b"x" * 100)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("first", [0, 1_000_000])
async def test_who_is_too_slow_for_a_while_is_cut_off(
    outbound: Open, origin: Origin, first: int
) -> None:
    url = origin.add("a", lambda request: dripping(request, first=first))  # 2 kB/s
    started = time.monotonic()
    error = await refusal(outbound(min_bytes_per_s=10_000, slow_s=0.4), url)
    assert error.code is ErrorCode.FETCH_TIMEOUT
    assert 0.35 < time.monotonic() - started < 2


async def test_who_is_just_fast_enough_is_not(outbound: Open, origin: Origin) -> None:
    async def steadily(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(20):
            await response.write(b"x" * 1000)
            await asyncio.sleep(0.05)
        return response

    client = outbound(min_bytes_per_s=5000, slow_s=0.4)
    assert len(await fetched(client, origin.add("a", steadily))) == 20_000


async def test_a_slow_disk_is_not_the_origins_fault(outbound: Open, origin: Origin) -> None:
    async def write(_: bytes) -> None:
        await asyncio.sleep(0.3)

    url = origin.add("a", b"x" * 1_000_000)
    client = outbound(min_bytes_per_s=1_000_000, slow_s=0.2)
    downloaded = await client.download(url, write)
    assert downloaded
    assert downloaded.bytes == 1_000_000


async def test_redirects_share_one_time_limit(outbound: Open, origin: Origin) -> None:
    async def slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(status=302, headers={"Location": "/a"})

    error = await refusal(outbound(total_s=0.5, max_redirects=20), origin.add("a", slowly))
    assert error.code is ErrorCode.FETCH_TIMEOUT


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 403, 404, 410, 501])
async def test_other_statuses_are_the_files_fault(
    outbound: Open, origin: Origin, status: int
) -> None:
    error = await refusal(outbound(), origin.add("a", answer(status, Retry_After="7")))
    assert error.code is ErrorCode.FETCH_STATUS
    assert str(status) in error.detail
    assert error.retry_after_s is None


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_statuses_of_the_moment_say_when_to_come_back(
    outbound: Open, origin: Origin, status: int
) -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    origin.add("soon", answer(status))
    origin.add("in seconds", answer(status, Retry_After="7"))
    origin.add("at a time", answer(status, Retry_After=in_an_hour))
    waits = []
    for name in ("soon", "in%20seconds", "at%20a%20time"):
        error = await refusal(outbound(), origin.url(name))
        assert error.code is ErrorCode.FETCH_STATUS
        waits.append(error.retry_after_s)
    assert waits == [0, 7, pytest.approx(3600, abs=10)]


async def test_nobody_listening_is_a_failed_connection(outbound: Open) -> None:
    error = await refusal(outbound(), f"http://127.0.0.1:{free_port()}/")
    assert error.code is ErrorCode.CONNECT_FAILED


async def test_an_unknown_name_is_a_failed_resolution(outbound: Open) -> None:
    error = await refusal(outbound(net={"resolve_s": 1}), "http://nobody.invalid/")
    assert error.code is ErrorCode.DNS_FAILED


# Posting.


async def test_a_post_arrives_whole_and_its_answer_is_told(
    outbound: Open, receiver: Receiver
) -> None:
    receiver.script = [answer(429, Retry_After="3")]
    told = await outbound().post(receiver.url, b'{"a":1}', {"Content-Type": "x/y"}, 5)
    assert (told.status, told.retry_after) == (429, "3")
    (received,) = receiver.received
    assert (received.body, received.headers["content-type"]) == (b'{"a":1}', "x/y")


async def test_a_post_follows_no_redirect(outbound: Open, receiver: Receiver) -> None:
    receiver.script = [answer(307, Location="/elsewhere")]
    assert (await outbound().post(receiver.url, b"{}", {}, 5)).status == 307
    assert len(receiver.received) == 1


async def test_a_receiver_that_talks_for_ever_is_not_listened_to(
    outbound: Open, receiver: Receiver
) -> None:
    receiver.script = [lambda request: chunked(request, pieces=10**12)]
    assert (await outbound().post(receiver.url, b"{}", {}, 3)).status == 200


async def test_a_receiver_that_hangs_times_out(outbound: Open, receiver: Receiver) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    receiver.script = [hang]
    with pytest.raises(ServiceError) as caught:
        await outbound().post(receiver.url, b"{}", {}, 0.2)
    assert caught.value.code is ErrorCode.FETCH_TIMEOUT
