"""What an answer says is heard, however it is written and whatever follows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.outbound.client import Outbound
from tests.raw import RawOrigin, whole
from tests.security.conftest import Open
from tests.support import Service

LOOPBACK = {"allow": ["127.0.0.0/8"]}
OK, LENGTH, CHUNKED = (
    b"HTTP/1.1 200 OK\r\n",
    b"Content-Length: 7\r\n",
    b"Transfer-Encoding: chunked\r\n",
)

USABLE = {
    "plain": OK + LENGTH + b"\r\npicture",
    "203": b"HTTP/1.1 203 Non-Authoritative Information\r\n" + LENGTH + b"\r\npicture",
    "a long header": OK + b"Content-Security-Policy: " + b"x" * 200_000 + b"\r\n" + LENGTH + b"\r\npicture",
    "many long headers": OK + (b"Set-Cookie: " + b"x" * 9000 + b"\r\n") * 20 + LENGTH + b"\r\npicture",
    "3,000 headers": OK + b"X-A: b\r\n" * 3000 + LENGTH + b"\r\npicture",
    "the length twice": OK + LENGTH + b"content-length:7\r\n\r\npicture",
    "the length twice in a line": OK + b"Content-Length: 7, 7\r\n\r\npicture",
    "one length in two spellings": OK + b"Content-Length: 07, 7\r\n\r\npicture",
    "a length and one without a number": OK + b"Content-Length:\r\n" + LENGTH + b"\r\npicture",
    "a length beside chunks": OK + b"Content-Length: 99\r\n" + CHUNKED + b"\r\n7\r\npicture\r\n0\r\n\r\n",
    "a length beside a coding that is none": OK + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\npicture",
    "chunked twice": OK + CHUNKED * 2 + b"\r\n7\r\npicture\r\n0\r\n\r\n",
    "chunk extensions and trailers": OK + CHUNKED + b'\r\n7;a=b;c="d"\r\npicture\r\n0;e\r\nX-A: b\r\n\r\n',
    "more than its length": OK + LENGTH + b"\r\npicture, and more",
    "another answer behind it": OK + LENGTH + b"\r\npicture" + OK + LENGTH + b"\r\nanother",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    + OK + LENGTH + b"\r\npicture",
    "an interim answer before what is mended": b"HTTP/1.1 103 Early Hints\r\n\r\n"
    + OK + LENGTH * 2 + b"\r\npicture",
    "ends of lines without CR": b"HTTP/1.1 200 OK\nContent-Length: 7\n\npicture",
    "a folded header": OK + b"X-A: b\r\n c\r\n\td\r\n" + LENGTH + b"\r\npicture",
    "a line that is no header": OK + b"this is none\r\n" + LENGTH + b"\r\npicture",
    "a header with a blank in its name": OK + b"X A: b\r\n" + LENGTH + b"\r\npicture",
    "a blank before the colon": OK + b"Server : x\r\nContent-Length : 7\r\n\r\npicture",
    "controls in a header": OK + b"X-A: a\0b\x01c\rd\x7f\r\n" + LENGTH + b"\r\npicture",
    "Latin-1 in a header": OK + b"X-A: caf\xe9\r\n" + LENGTH + b"\r\npicture",
    "headers that should be one": OK + (b"Server: a\r\nDate: b\r\nETag: c\r\nContent-Type: d/e\r\n" * 2)
    + LENGTH + b"\r\npicture",
    "no reason": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\npicture",
    "a reason in Latin-1": b"HTTP/1.1 200 Tr\xe8s bien\r\n" + LENGTH + b"\r\npicture",
    "an empty line before it": b"\r\n" + OK + LENGTH + b"\r\npicture",
    "an upgrade that nobody asked for": OK + b"Upgrade: h2,h2c\r\nConnection: Upgrade\r\n" + LENGTH + b"\r\npicture",
}  # fmt: skip


async def fetched(client: Outbound, url: str) -> bytes:
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    await client.download(url, write)
    return b"".join(pieces)


async def refusal(client: Outbound, url: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await fetched(client, url)
    return caught.value


def packets(answer: bytes, size: int) -> list[bytes]:
    return [answer[at : at + size] for at in range(0, len(answer), size)]


@pytest.mark.parametrize("name", USABLE)
async def test_a_usable_answer_is_used(outbound: Open, name: str) -> None:
    answer = USABLE[name]
    status = 203 if name == "203" else 200
    for sent in (answer, packets(answer, max(3, len(answer) // 40))):
        async with RawOrigin({"*": sent}) as origin:
            assert await fetched(outbound(LOOPBACK), f"{origin.base}/a") == b"picture"
            assert (
                await outbound(LOOPBACK).post(f"{origin.base}/a", b"{}", {}, 5)
            ).status == status


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_the_end_of_the_connection_is_the_end_of_a_body_without_length(
    outbound: Open, version: bytes
) -> None:
    answer = b"HTTP/%b 200 OK\r\nConnection: close\r\n\r\npicture" % version
    async with RawOrigin({"*": answer}, closes=True) as origin:
        assert await fetched(outbound(LOOPBACK), f"{origin.base}/a") == b"picture"


BROKEN = {
    "no chunk": b"xyz",
    "a broken chunk": b"7\r\npicture\r\nZZ\r\n",
    "a chunk longer than it says": b"3\r\npicture\r\n0\r\n\r\n",
    "a negative chunk": b"-7\r\npicture\r\n0\r\n\r\n",
    "no last chunk": b"7\r\npicture\r\n",
    "half a chunk": b"7\r\npict",
    "nothing": b"",
}


@pytest.mark.parametrize("size", [1000, 5])
@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_behind_a_good_status_is_no_failed_connection(
    outbound: Open, name: str, size: int
) -> None:
    """For a webhook the status is the answer; an image is cut off. Neither waits for a timeout."""
    answer = OK + CHUNKED + b"\r\n" + BROKEN[name]
    async with RawOrigin({"*": packets(answer, size)}, closes=True) as origin:
        error = await refusal(outbound(LOOPBACK, silence_s=20), f"{origin.base}/a")
        assert error.code is ErrorCode.FETCH_TRUNCATED
        assert (await outbound(LOOPBACK).post(f"{origin.base}/a", b"{}", {}, 20)).status == 200


async def test_a_reader_between_two_chunks_learns_that_the_next_is_broken(outbound: Open) -> None:
    """The end of one chunk and the fault come in one packet: the reader is awake, and looks again."""
    answer = [OK + CHUNKED + b"\r\n7\r\npicture\r", b"\nZZ\r\n"]
    async with RawOrigin({"*": answer}) as origin:
        error = await refusal(outbound(LOOPBACK, silence_s=20), f"{origin.base}/a")
    assert error.code is ErrorCode.FETCH_TRUNCATED


@pytest.mark.parametrize("head", [b"", LENGTH, b"Content-Length: 0\r\n", CHUNKED])
@pytest.mark.parametrize("size", [1000, 7])
async def test_an_answer_that_must_not_have_a_body_may_have_one(
    outbound: Open, head: bytes, size: int
) -> None:
    answer = b"HTTP/1.1 204 No Content\r\n%b\r\npicture" % head
    client = outbound(LOOPBACK)
    async with RawOrigin({"*": packets(answer, size)}) as origin:
        assert (await client.post(f"{origin.base}/a", b"{}", {}, 5)).status == 204
        error = await refusal(outbound(LOOPBACK), f"{origin.base}/a")
    assert error.detail == "The origin answered with status 204."


# Heads that leave open where the body ends.
UNFRAMED = {
    "two lengths": b"Content-Length: 7\r\nContent-Length: 8\r\n",
    "two lengths in a line": b"Content-Length: 7, 8\r\n",
    "a length in words": b"Content-Length: seven\r\n",
    "a negative length": b"Content-Length: -7\r\n",
    "a length with a sign": b"Content-Length: +7\r\n",
    "a length that no number holds": b"Content-Length: " + b"9" * 30 + b"\r\n",
    "more headers than are looked at": b"X: b\r\n" * 5000 + LENGTH,
}


@pytest.mark.parametrize("size", [10**6, 10])
@pytest.mark.parametrize("name", UNFRAMED)
async def test_a_body_whose_end_nobody_knows_does_not_hide_the_status(
    outbound: Open, name: str, size: int
) -> None:
    """The connection stays open: who waited for the body's end would be told by a timeout."""
    answer = OK + UNFRAMED[name] + b"\r\npicture!"
    size = max(size, len(answer) // 20)
    async with RawOrigin({"*": packets(answer, size)}) as origin:
        error = await refusal(outbound(LOOPBACK, silence_s=20), f"{origin.base}/a")
        assert error.code is ErrorCode.FETCH_TRUNCATED
        assert (await outbound(LOOPBACK).post(f"{origin.base}/a", b"{}", {}, 20)).status == 200
    answer = answer.replace(b"200 OK", b"404 No")
    async with RawOrigin({"*": packets(answer, size)}) as origin:
        error = await refusal(outbound(LOOPBACK, silence_s=20), f"{origin.base}/a")
        assert error.detail == "The origin answered with status 404."


@pytest.mark.parametrize(
    "head",
    [
        OK + b"a:b\r\n" * 50_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000 + OK + LENGTH + b"\r\npicture",
    ],
    ids=["lines", "interim answers"],
)
async def test_no_head_takes_the_processor_from_others(outbound: Open, head: bytes) -> None:
    async with RawOrigin({"*": head}) as origin:
        before = time.process_time()
        await outbound(LOOPBACK).post(f"{origin.base}/a", b"{}", {}, 20)
        assert time.process_time() - before < 0.5


UNUSABLE = {
    "a head that does not end": OK + b"X-A: b\r\n" * 100_000,
    "another protocol": b"ICY 200 OK\r\n" + LENGTH + b"\r\npicture",
    "a greeting": b"220 mail.example ESMTP\r\n",
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_what_is_no_answer_is_refused_at_once(outbound: Open, name: str) -> None:
    """Not by a timeout: the connection stays open."""
    async with RawOrigin({"*": UNUSABLE[name]}) as origin:
        error = await refusal(outbound(LOOPBACK, silence_s=20), f"{origin.base}/a")
        assert error.code is ErrorCode.CONNECT_FAILED
        with pytest.raises(ServiceError, match="CONNECT_FAILED"):
            await outbound(LOOPBACK).post(f"{origin.base}/a", b"{}", {}, 20)


async def test_connections_of_good_answers_are_used_again(outbound: Open) -> None:
    client = outbound(LOOPBACK)
    async with RawOrigin({"*": USABLE["a folded header"]}) as origin:
        for _ in range(3):
            assert await fetched(client, f"{origin.base}/a") == b"picture"
        assert origin.connections == 1


async def test_a_receiver_that_answers_badly_is_told_once(
    start_service: Callable[..., Any], origin: Any
) -> None:
    service: Service = await start_service()
    for answer in (
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\ndone",
        OK + CHUNKED + b"\r\nnot a chunk",
        OK + b"X-A: " + b"x" * 9000 + b"\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    ):
        async with RawOrigin({"*": answer}) as receiver:
            request_id = await service.upload([[origin.url("none.jpg")]], webhookUrl=receiver.base)
            status = await service.announced(request_id)
            assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}
            assert len(receiver.heads) == 1


async def test_an_image_of_a_proxy_is_an_image(service: Service, origin: Any) -> None:
    body = origin.photo("coffee.png")
    answer = whole(body, head=LENGTH.replace(b"7", b"%d" % len(body))).replace(b"200 OK", b"203 X")
    async with RawOrigin({"*": answer}) as raw:
        request_id = await service.upload([[f"{raw.base}/a.png"]])
        assert (await service.finished(request_id))["status"] == "COMPLETED"


PAGE = b"<!DOCTYPE html><html><head><title>%b</title></head><body>" % (b"x" * 150)


async def test_a_refusal_is_read_no_longer_than_it_takes(outbound: Open) -> None:
    """However it goes on: endless, broken, hanging, or compressed in a way that is not undone."""
    forbidden = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n"
    for answer in (
        forbidden + b"\r\n" + PAGE + b"x" * 5_000_000,
        forbidden + CHUNKED + b"\r\nbroken",
        forbidden + b"Content-Length: 100000\r\n\r\n" + PAGE,
        forbidden + b"Content-Encoding: br\r\nContent-Length: 9\r\n\r\nsomething",
        forbidden + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n\x1f\x8bsomethi",
    ):
        async with RawOrigin({"*": answer}) as origin:
            error = await refusal(outbound(LOOPBACK, silence_s=20), origin.base)
            assert error.code is ErrorCode.FETCH_BLOCKED
            assert error.retry_after_s is None


async def test_a_page_that_comes_in_pieces_is_looked_at_as_a_whole(outbound: Open) -> None:
    body = PAGE + b"y" * 9000 + b" verify you are human </body></html>"
    answer = whole(body, head=b"Content-Type: image/jpeg\r\n")
    async with RawOrigin({"*": packets(answer, 500)}) as origin:
        assert (await refusal(outbound(LOOPBACK), origin.base)).code is ErrorCode.FETCH_BLOCKED
    page = PAGE + b"y" * 100_000
    async with RawOrigin({"*": packets(whole(page), 9000)}) as origin:
        assert await fetched(outbound(LOOPBACK), origin.base) == page  # not an image, but no wall
