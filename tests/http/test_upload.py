"""What POST /api/upload accepts, and how it refuses."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp
import pytest

from tests.support import Origin, Service

PRODUCT: dict[str, Any] = {
    "serialNumber": "1",
    "productName": "Chair",
    "inputUrls": ["https://example.com/a.jpg"],
}
CSV = "Serial Number,Product Name,Input Image Urls\n"


async def test_json_is_accepted_with_its_id_and_place(service: Service, origin: Origin) -> None:
    body = {"products": [{**PRODUCT, "inputUrls": [origin.url("rocket.jpg")]}]}
    async with service.session.post(f"{service.url}/api/upload", json=body) as response:
        answer = await response.json()
        assert response.status == 202
        assert answer == {"requestId": answer["requestId"], "status": "PENDING"}
        assert response.headers["Location"] == f"/status/{answer['requestId']}"
    assert (await service.finished(answer["requestId"]))["status"] == "COMPLETED"


async def test_a_csv_body_takes_webhook_and_options_as_query(
    service: Service, origin: Origin
) -> None:
    csv = CSV + f'7,Lamp,"{origin.url("rocket.jpg")}, {origin.url("coffee.png")}"\n'
    status, answer = await service.post(
        "/api/upload?webhookUrl=http://127.0.0.1:9/hook&options=%7B%22format%22:%22webp%22%7D",
        data=csv.encode("utf-8-sig"),
        headers={"Content-Type": "text/csv; charset=utf-8"},
    )
    assert status == 202, answer
    done = await service.finished(answer["requestId"])
    assert done["totalImages"] == 2
    assert done["webhook"] is not None
    assert {i["format"] for i in await service.images(answer["requestId"])} == {"webp"}
    await service.announced(answer["requestId"])


async def test_a_form_takes_the_same_fields(service: Service, origin: Origin) -> None:
    form = aiohttp.FormData()
    form.add_field("file", CSV + f"7,Lamp,{origin.url('rocket.jpg')}\n", filename="products.csv")
    form.add_field("options", '{"format": "png"}')
    status, answer = await service.post("/api/upload", data=form)
    assert status == 202, answer
    assert (await service.finished(answer["requestId"]))["webhook"] is None
    assert [i["format"] for i in await service.images(answer["requestId"])] == ["png"]


async def test_a_comma_within_a_url_of_a_csv_survives(service: Service, origin: Origin) -> None:
    url = origin.add("a,b.jpg", b"no picture")
    csv = CSV + f'1,A,"{url}, {url}"\n'
    _, answer = await service.post("/api/upload", data=csv, headers={"Content-Type": "text/csv"})
    await service.finished(answer["requestId"])
    assert [i["inputUrl"] for i in await service.images(answer["requestId"])] == [url, url]


REFUSED_JSON: list[tuple[str, Any, int, str, list[Any]]] = [
    ("nothing", b"", 400, "INVALID_JSON", [[]]),
    ("not JSON", b'{"products": [', 400, "INVALID_JSON", [[]]),
    ("a list", [], 422, "VALIDATION_FAILED", [[]]),
    ("no products", {}, 422, "VALIDATION_FAILED", [["products"]]),
    ("empty products", {"products": []}, 422, "VALIDATION_FAILED", [["products"]]),
    (
        "no URLs",
        {"products": [{**PRODUCT, "inputUrls": []}]},
        422,
        "VALIDATION_FAILED",
        [["products", 0, "inputUrls"]],
    ),
    (
        "wrong type and a missing field, both told",
        {"products": [{"serialNumber": 1.5, "inputUrls": ["https://example.com/a"]}]},
        422,
        "VALIDATION_FAILED",
        [["products", 0, "serialNumber"], ["products", 0, "productName"]],
    ),
    (
        "unknown fields at every depth",
        {"products": [{**PRODUCT, "color": "red"}], "x": 1, "options": {"size": 3}},
        422,
        "VALIDATION_FAILED",
        [["products", 0, "color"], ["options", "size"], ["x"]],
    ),
    (
        "a URL that is not http",
        {"products": [PRODUCT, {**PRODUCT, "inputUrls": ["https://example.com/a", "ftp://b.c/d"]}]},
        422,
        "VALIDATION_FAILED",
        [["products", 1, "inputUrls", 1]],
    ),
    (
        "a bad webhook URL",
        {"products": [PRODUCT], "webhookUrl": "hook"},
        422,
        "VALIDATION_FAILED",
        [["webhookUrl"]],
    ),
    (
        "a quality out of range",
        {"products": [PRODUCT], "options": {"quality": 101}},
        422,
        "VALIDATION_FAILED",
        [["options", "quality"]],
    ),
    (
        "an unknown format",
        {"products": [PRODUCT], "options": {"format": "bmp"}},
        422,
        "VALIDATION_FAILED",
        [["options", "format"]],
    ),
]


@pytest.mark.parametrize(
    ("body", "status", "code", "places"),
    [case[1:] for case in REFUSED_JSON],
    ids=[case[0] for case in REFUSED_JSON],
)
async def test_bad_json_is_refused_with_each_place(
    service: Service, body: Any, status: int, code: str, places: list[Any]
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body)
    async with service.session.post(
        f"{service.url}/api/upload", data=data, headers={"Content-Type": "application/json"}
    ) as response:
        problem = await response.json()
        assert (response.status, problem["code"]) == (status, code), problem
        assert response.content_type == "application/problem+json"
    assert problem["status"] == status
    assert sorted(map(str, places)) == sorted(str(e["loc"]) for e in problem.get("errors", []))
    assert await service.get("/api/requests") == (200, {"requests": [], "nextCursor": None})


@pytest.mark.parametrize(
    ("limits", "body", "place"),
    [
        ({"max_products": 1}, {"products": [PRODUCT, PRODUCT]}, ["products"]),
        (
            {"max_urls_per_product": 1},
            {"products": [{**PRODUCT, "inputUrls": ["https://example.com/a"] * 2}]},
            ["products", 0, "inputUrls"],
        ),
        ({"max_images": 1}, {"products": [PRODUCT, PRODUCT]}, ["products"]),
    ],
)
async def test_limits_are_told_with_their_remedy(
    start_service: Any, limits: dict[str, int], body: Any, place: list[Any]
) -> None:
    service = await start_service(http=limits)
    status, problem = await service.post("/api/upload", json=body)
    assert (status, problem["code"]) == (422, "VALIDATION_FAILED")
    assert problem["errors"][0]["loc"] == place
    assert "allowed" in problem["errors"][0]["msg"]


async def chunks(size: int, count: int) -> Any:
    for _ in range(count):
        yield b"x" * size


async def test_a_body_over_the_limit_is_refused_however_it_is_sent(start_service: Any) -> None:
    service = await start_service(http={"body_limit_bytes": 10_000})
    form = aiohttp.FormData()
    form.add_field("file", b"x" * 20_000, filename="products.csv")
    sent: list[dict[str, Any]] = [
        {"data": b"x" * 20_000, "headers": {"Content-Type": "application/json"}},
        {"data": chunks(5_000, 4), "headers": {"Content-Type": "text/csv"}},
        {"data": form},
    ]
    for request in sent:
        status, problem = await service.post("/api/upload", **request)
        assert (status, problem["code"]) == (413, "BODY_TOO_LARGE")
        assert "10000 bytes" in problem["detail"]


async def test_a_csv_problem_names_line_and_column(service: Service) -> None:
    status, problem = await service.post(
        "/api/upload",
        data=CSV + "1,A,https://example.com/a\n2,,https://example.com/b\n",
        headers={"Content-Type": "text/csv"},
    )
    assert (status, problem["code"]) == (422, "INVALID_CSV")
    assert problem["errors"][0]["loc"] == ["line", 3, "Product Name"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"data": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (
            {"data": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "BAD_REQUEST",
        ),
        (
            {"data": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            400,
            "BAD_REQUEST",
        ),
    ],
)
async def test_bodies_that_make_no_sense(
    service: Service, request_: dict[str, Any], status: int, code: str
) -> None:
    answered, problem = await service.post("/api/upload", **request_)
    assert (answered, problem["code"]) == (status, code), problem


async def test_a_form_with_an_unknown_or_missing_field_is_refused(service: Service) -> None:
    for name, place in (("photo", "photo"), ("options", "file")):
        form = aiohttp.FormData()
        form.add_field(name, "{}", filename="x")
        status, problem = await service.post("/api/upload", data=form)
        assert (status, problem["errors"][0]["loc"]) == (422, [place])


async def test_a_body_that_trickles_is_cut_off(start_service: Any) -> None:
    service = await start_service(http={"body_timeout_s": 0.3})
    reader, writer = await asyncio.open_connection("127.0.0.1", service.settings.http.port)
    writer.write(
        b"POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    writer.close()
    assert re.match(rb"HTTP/1.1 408 ", answer)


async def test_above_the_backlog_uploads_are_put_off(start_service: Any, origin: Origin) -> None:
    service = await start_service(http={"backlog_limit": 1})
    urls = [origin.url("rocket.jpg"), origin.url("coffee.png")]
    async with service.session.post(
        f"{service.url}/api/upload", json={"products": [{**PRODUCT, "inputUrls": urls}]}
    ) as response:
        assert (response.status, (await response.json())["code"]) == (503, "OVERLOADED")
        assert int(response.headers["Retry-After"]) > 0
