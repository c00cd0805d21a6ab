"""Bodies and queries that are meant to be expensive: refused soon, while the service answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import psutil
import pytest

from tests.support import Service, wait_until

MB = 1 << 20
LIMIT = 16 * MB
JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
HEADER = b"Serial Number,Product Name,Input Image Urls\n"
PRODUCT = b'{"serialNumber":"1","productName":"x","inputUrls":["http://a.bc/"]}'
SOON_S = 20.0  # on a busy machine; before they were bounded these took minutes
ROOM = 400 * MB  # they took up to eight gigabytes


def filled(start: bytes, piece: bytes, end: bytes) -> bytes:
    """As many pieces as fit into the largest body that is accepted."""
    count = (LIMIT - len(start) - len(end)) // (len(piece) + 1)
    return start + b",".join([piece] * count) + end


def bombs() -> dict[str, tuple[bytes, dict[str, str]]]:
    """The largest bodies that are accepted, each full of something."""
    products, one_product = b'{"products":[', PRODUCT[: PRODUCT.index(b"[") + 1]
    keys = b",".join(b'"%d":1' % n for n in range(LIMIT // 12))
    nested = b"[" * 30 + b"]" * 30
    return {
        "JSON of numbers for products": (filled(products, b"1", b"]}"), JSON),
        "JSON of empty products": (filled(products, b"{}", b"]}"), JSON),
        "JSON of lists": (filled(products, nested, b"]}"), JSON),
        "JSON of one level below the other": (b"[" * LIMIT, JSON),
        "JSON of numbers for URLs": (filled(products + one_product, b"1", b"]}]}"), JSON),
        "JSON of empty URLs": (filled(products + one_product, b'""', b"]}]}"), JSON),
        "JSON of unknown fields": (b"{" + keys + b"}", JSON),
        "JSON of unknown fields in a product": (products + b"{" + keys + b"}]}", JSON),
        "JSON of one text": (b'{"webhookUrl":"' + b"x" * (LIMIT - 20) + b'"}', JSON),
        "JSON of too many products": (filled(products, PRODUCT, b"]}"), JSON),
        "CSV of short lines": (HEADER + b"1\n" * (LIMIT // 2 - 50), CSV),
        "CSV of columns": (b"a," * (LIMIT // 2 - 50), CSV),
        "CSV of cells": (HEADER + b"1,x," + b"a," * (LIMIT // 2 - 50), CSV),
        "CSV of quotes": (HEADER + b'"' * (LIMIT - 100), CSV),
        "CSV of URLs": (HEADER + b'1,x,"' + b"http://a.bc/ " * 9_000 + b'"', CSV),
        "CSV of too many products": (HEADER + b"1,x,http://a.bc/\n" * (LIMIT // 18), CSV),
    }


BOMBS = bombs()


@contextlib.asynccontextmanager
async def watching(service: Service) -> AsyncIterator[list[float]]:
    """Asks /healthz all the time; the list holds how long each answer took."""
    waits: list[float] = []

    async def ask() -> None:
        while True:
            asked = time.monotonic()
            assert (await service.get("/healthz"))[0] == 200
            waits.append(time.monotonic() - asked)
            await asyncio.sleep(0.005)

    asking = asyncio.create_task(ask())
    try:
        yield waits
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), MB):
        yield body[at : at + MB]


async def test_bombs_of_text_are_refused_soon_and_the_service_answers_meanwhile(
    service: Service,
) -> None:
    base = psutil.Process().memory_info().rss
    for number, (name, (body, headers)) in enumerate(BOMBS.items()):
        dry = number % 3 == 2
        started = time.monotonic()
        async with (
            watching(service) as waits,
            service.session.post(
                f"{service.url}/api/upload?validate={str(dry).lower()}",
                data=pieces(body),
                headers=headers,
            ) as response,
        ):
            answer = await response.read()
        said = orjson.loads(answer)
        if dry:
            assert (response.status, said["valid"]) == (200, False), name
        else:
            assert response.status in {400, 422}, name
            assert said["code"] in {"INVALID_JSON", "VALIDATION_FAILED", "INVALID_CSV"}, name
        assert len(answer) < 100_000, name
        assert time.monotonic() - started < SOON_S, name
        assert max(waits) < 5, f"{name}: the service did not answer for {max(waits):.1f} s"
        assert psutil.Process().memory_info().rss - base < ROOM, name


@pytest.mark.parametrize("line", [b"\n", b"x" * 60_000 + b"\n"], ids=["empty", "long"])
async def test_what_comes_before_a_form_is_not_read_for_ever(service: Service, line: bytes) -> None:
    """There may be lines before its first part, by the book; they are no part that is counted."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += MB
            yield line * (MB // len(line))

    async with watching(service) as waits:
        with contextlib.suppress(aiohttp.ClientError):  # it is cut off while it still sends
            async with service.session.post(
                f"{service.url}/api/upload", data=endless(), headers=FORM
            ) as response:
                assert response.status == 400
                assert (await response.json())["code"] == "BAD_REQUEST"
    assert sent < 5 * LIMIT, "most of it waits in buffers"
    assert max(waits, default=0) < 5


async def test_all_bodies_together_are_bounded(start_service: Any) -> None:
    """Slow uploads fill what is meant for bodies, and not the memory."""
    service: Service = await start_service(
        http={"body_limit_bytes": MB, "intake_bytes": 2 * MB, "body_timeout_s": 30}
    )
    wrong = {"data": b" " * (MB // 2), "headers": JSON}
    half = (
        b"POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % MB
    ) + b" " * (MB // 2 - 1000)
    async with contextlib.AsyncExitStack() as stack:
        uploads = {}
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.settings.http.port)
            stack.callback(writer.close)
            writer.write(half)
            uploads[asyncio.create_task(reader.readline())] = writer
        refused, held = await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().split()[1] for task in refused] == [b"503"]

        status, problem = await service.post("/api/upload", **wrong)
        assert (status, problem["code"]) == (503, "OVERLOADED")
        assert (await service.get("/healthz"))[0] == 200
        for task in held:
            task.cancel()
        uploads[held.pop()].close()

        async def has_room() -> bool:
            return bool((await service.post("/api/upload", **wrong))[0] == 400)

        await wait_until(has_room, "there is room again")


async def test_a_client_that_goes_away_is_no_error_of_ours(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", service.settings.http.port)
    writer.write(
        b"POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    said = []

    async def is_told() -> bool:
        said.append(capsys.readouterr().out)
        return "status=499" in "".join(said)

    await wait_until(is_told, "it is logged")
    assert "http.failed" not in "".join(said)


async def test_what_is_wrong_with_many_products_is_still_told_for_each(service: Service) -> None:
    body = b'{"products":[' + PRODUCT + b',1,{},{"serialNumber":"2","x":1,"inputUrls":[3]}]}'
    _, problem = await service.post("/api/upload", data=body, headers=JSON)
    assert [error["loc"] for error in problem["errors"]] == [
        ["products", 1],
        *(["products", 2, name] for name in ("serialNumber", "productName", "inputUrls")),
        ["products", 3, "productName"],
        ["products", 3, "inputUrls", 0],
        ["products", 3, "x"],
    ]


COMPRESSED = [
    ("gzip", gzip.compress(b" " * 50 * MB)),
    ("deflate", zlib.compress(b" " * 50 * MB)),
    ("gzip", b"this is not gzip"),
    ("br", b"x"),
    ("zstd", b"x"),
    ("made-up", b"{}"),
]


async def test_a_compressed_body_is_refused_and_not_inflated(service: Service) -> None:
    for encoding, body in COMPRESSED:
        for path in ("/api/upload", "/api/webhooks/test"):
            status, problem = await service.post(
                path, data=body, headers={**JSON, "Content-Encoding": encoding}
            )
            assert (status, problem["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE"), encoding


async def test_a_field_beside_the_file_is_small(service: Service) -> None:
    form = aiohttp.FormData()
    form.add_field("options", "[" + "1," * 100_000 + "1]")
    form.add_field("file", HEADER + b"1,x,http://a.bc/\n", filename="products.csv")
    status, problem = await service.post("/api/upload", data=form)
    assert (status, problem["code"]) == (413, "BODY_TOO_LARGE")


async def test_texts_are_bounded_however_they_are_sent(service: Service) -> None:
    long = "n" * 501
    product = {"serialNumber": "1", "productName": long, "inputUrls": ["http://a.bc/"]}
    status, problem = await service.post("/api/upload", json={"products": [product]})
    assert (status, problem["errors"][0]["loc"]) == (422, ["products", 0, "productName"])
    status, problem = await service.post(
        "/api/upload", data=HEADER + f"1,{long},http://a.bc/\n".encode(), headers=CSV
    )
    assert (status, problem["errors"][0]["loc"]) == (422, ["line", 2, "Product Name"])


def cursor(position: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


EARLIEST, LATEST = "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"


BEYOND = [
    ("/api/requests/{id}/images", {"cursor": cursor([2**63, 0])}),
    ("/api/requests/{id}/images", {"cursor": cursor([2**64 - 1, 0])}),
    ("/api/requests/{id}/images", {"cursor": cursor([0, 2**63])}),
    ("/api/requests/{id}/images", {"cursor": cursor([-1, 0])}),
    ("/api/requests", {"cursor": cursor([EARLIEST, "x"])}),
    ("/api/requests", {"cursor": cursor([LATEST, "x"])}),
    ("/api/requests", {"cursor": cursor([{"$gt": ""}, "x"])}),
    ("/api/requests", {"cursor": "[" * 2_000}),
    ("/api/requests", {"createdAfter": EARLIEST}),
    ("/api/requests", {"createdBefore": LATEST}),
]


async def test_numbers_and_times_beyond_what_the_ledger_holds_are_refused(
    service: Service,
) -> None:
    request_id = await service.upload([["http://127.0.0.1:9/"]])
    await service.finished(request_id)
    for path, query in BEYOND:
        status, problem = await service.get(path.format(id=request_id), **query)
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED"), query


async def test_made_up_methods_make_no_metrics(service: Service) -> None:
    for method in ("PROPFIND", "MKCOL", "REPORT"):
        async with service.session.request(method, f"{service.url}/healthz") as response:
            assert response.status == 405
    async with service.session.get(f"{service.url}/metrics") as response:
        text = await response.text()
    assert 'method="other"' in text
    assert "PROPFIND" not in text
