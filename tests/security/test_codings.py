"""What Content-Encoding says of a body is undone within limits, or means nothing."""

from __future__ import annotations

import gzip
import re
import zlib

import pytest

from imgsvc.domain.errors import ErrorCode
from tests.hostile import WHOLE
from tests.raw import RawOrigin, whole
from tests.security.conftest import Open
from tests.security.test_answers import LOOPBACK, fetched, refusal
from tests.support import Origin, Service

PICTURE = bytes(range(256)) * 4096


def labelled(*labels: str, body: bytes = PICTURE) -> bytes:
    return whole(
        body, head=b"".join(b"Content-Encoding: %b\r\n" % each.encode() for each in labels)
    )


def deflated(data: bytes, window: int = zlib.MAX_WBITS) -> bytes:
    made = zlib.compressobj(wbits=window)
    return made.compress(data) + made.flush()


NOTHING = [
    ("",),
    (" ",),
    (",",),
    ("identity",),
    ("Identity",),
    ("identity, identity",),
    ("identity", "identity"),
    ("aws-chunked",),
    ("aws-chunked,",),
    ("aws-chunked, identity",),
    ("UTF-8",),
    ("utf8",),
    ("none",),
    ("None",),
    ("null",),
    ("binary",),
    ("base64",),
    ("8bit",),
    ("chunked",),
    ("image/jpeg",),
    ("jpeg",),
    ("text/plain; charset=utf-8",),
    ("*",),
    ("gzipped",),
    ("sdch",),
    ("\u00fcber",),
    ("x" * 5000,),
]


@pytest.mark.parametrize("labels", NOTHING, ids=lambda labels: "+".join(labels)[:20])
async def test_a_label_that_says_nothing_is_passed_over(
    outbound: Open, labels: tuple[str, ...]
) -> None:
    async with RawOrigin({"*": labelled(*labels)}) as origin:
        assert await fetched(outbound(LOOPBACK), origin.base) == PICTURE


TWO = gzip.compress(PICTURE[:1000]) + gzip.compress(PICTURE[1000:])
INFLATED = {
    "gzip": (("gzip",), gzip.compress(PICTURE)),
    "GZIP": (("GZIP",), gzip.compress(PICTURE)),
    "x-gzip": (("x-gzip",), gzip.compress(PICTURE)),
    "deflate": (("deflate",), deflated(PICTURE)),
    "deflate without a frame": (("deflate",), deflated(PICTURE, -zlib.MAX_WBITS)),
    "behind a label that says nothing": (("aws-chunked,gzip",), gzip.compress(PICTURE)),
    "in two headers": (("identity", "gzip"), gzip.compress(PICTURE)),
    "two members": (("gzip",), TWO),
    "zeros behind it": (("gzip",), gzip.compress(PICTURE) + bytes(1000)),
    "something behind it": (("deflate",), deflated(PICTURE) + b"something"),
    "called gzip, but it is not": (("gzip",), PICTURE),
    "one byte that is called gzip": (("gzip",), b"x"),
    "nothing that is called gzip": (("gzip",), b""),
}


@pytest.mark.parametrize("name", INFLATED)
async def test_what_is_compressed_is_inflated(outbound: Open, name: str) -> None:
    labels, body = INFLATED[name]
    expected = body if len(body) < 2 else PICTURE
    answer = labelled(*labels, body=body)
    cut = [answer[:-30], answer[-30:]] if len(body) > 100 else [answer]
    byte_by_byte = [answer[: len(answer) - len(body) + 1], answer[len(answer) - len(body) + 1 :]]
    for packets in (answer, cut, byte_by_byte):
        async with RawOrigin({"*": packets}) as origin:
            assert await fetched(outbound(LOOPBACK), origin.base) == expected


@pytest.mark.parametrize(
    "labels", ["br", "zstd", "compress", "x-compress", "BR", "identity, br", "gzip, gzip", "br, gzip", "dcb"]
)  # fmt: skip
async def test_what_is_not_undone_is_named(outbound: Open, labels: str) -> None:
    async with RawOrigin({"*": labelled(labels)}) as origin:
        error = await refusal(outbound(LOOPBACK), origin.base)
    assert error.code is ErrorCode.FETCH_STATUS
    assert f"compressed as {labels.lower().removeprefix('identity, ')} " in error.detail


@pytest.mark.parametrize("label", ["gzip", "deflate", "br", "zstd", "compress", "gzip, gzip"])
async def test_an_image_is_one_whatever_its_label_says(outbound: Open, label: str) -> None:
    for picture in WHOLE.values():
        async with RawOrigin({"*": labelled(label, body=picture)}) as origin:
            assert await fetched(outbound(LOOPBACK), origin.base) == picture


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_compressed_body_that_ends_early_is_truncated(outbound: Open, coding: str) -> None:
    body = gzip.compress(PICTURE) if coding == "gzip" else deflated(PICTURE)
    for length in (2, 9, len(body) // 2, len(body) - 1):
        async with RawOrigin({"*": labelled(coding, body=body[:length])}) as origin:
            error = await refusal(outbound(LOOPBACK), origin.base)
        assert error.code is ErrorCode.FETCH_TRUNCATED, length


async def test_a_damaged_body_is_called_so(outbound: Open) -> None:
    good = gzip.compress(PICTURE)
    for coding, body in (
        ("gzip", good[:500] + b"\xff" * 500 + good[1000:]),
        ("gzip", good[:-8] + bytes(8)),  # another checksum
        ("deflate", b"\x78\x9c" + b"\xff" * 1000),
        ("deflate", b"\xff\xd9\xff\xe0" + PICTURE),
    ):
        async with RawOrigin({"*": labelled(coding, body=body)}) as origin:
            error = await refusal(outbound(LOOPBACK), origin.base)
        assert error.code is ErrorCode.FETCH_STATUS
        assert error.detail == f"The origin sent a {coding} body that cannot be inflated."


async def test_a_bomb_is_too_large_before_it_is_inflated(outbound: Open) -> None:
    written = 0

    async def write(piece: bytes) -> None:
        nonlocal written
        written += len(piece)

    bomb = gzip.compress(bytes(300_000_000), 1)
    many = gzip.compress(bytes(1_000_000)) * 300
    noise = gzip.compress(PICTURE * 40)  # 40 MB that shrink to less
    for body, most, limit in (
        (bomb, 150_000_000, 10**9),
        (many, 110_000_000, 10**9),
        (noise, 10**6, 10**6),
    ):
        written = 0
        async with RawOrigin({"*": labelled("gzip", body=body)}) as origin:
            with pytest.raises(Exception, match="TOO_LARGE"):
                await outbound(LOOPBACK, max_bytes=limit).download(origin.base, write)
        assert written <= most


async def test_empty_members_do_not_keep_anybody_busy(outbound: Open) -> None:
    body = gzip.compress(b"", 1) * 100_000  # 2 MB
    async with RawOrigin({"*": labelled("gzip", body=body)}) as origin:
        assert await fetched(outbound(LOOPBACK), origin.base) == b""


async def test_an_image_that_was_stored_compressed_is_an_image(
    service: Service, origin: Origin
) -> None:
    picture = origin.photo("coffee.png")
    answers = {
        "/a.png": labelled("gzip", body=gzip.compress(picture)),
        "/b.png": labelled("aws-chunked", body=picture),
        "/c.png": labelled("br", body=b"\x0b" + picture),
    }
    async with RawOrigin(answers) as raw:
        request_id = await service.upload([[f"{raw.base}{path}" for path in answers]])
        await service.finished(request_id)
    inflated, labelled_only, refused = await service.images(request_id)
    assert {inflated["status"], labelled_only["status"]} == {"COMPLETED"}
    assert inflated["bytesIn"] == len(picture)
    assert refused["error"]["code"] == "FETCH_STATUS"
    assert re.search(r"compressed as br\b", refused["error"]["detail"])
