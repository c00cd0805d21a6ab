"""POST /api/upload?validate=true says what would come of an upload, and stores nothing."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson
import pytest

from tests.support import Origin, Service

HEADER = "Serial Number,Product Name,Input Image Urls\n"
A, B = "https://example.com/a.jpg", "https://example.com/b.jpg"
EMPTY = "is empty; fill it in or remove the line"


async def tried(service: Service, body: Any, kind: str = "text/csv", **query: str) -> Any:
    """The answer to a dry run; nothing may have been stored."""
    data = body if isinstance(body, bytes | str) else orjson.dumps(body)
    status, answer = await service.post(
        "/api/upload",
        params={"validate": "true", **query},
        data=data,
        headers={"Content-Type": kind},
    )
    assert status == 200, answer
    assert await service.get("/api/requests") == (200, {"requests": [], "nextCursor": None})
    return answer


def product(serial: Any = "1", name: Any = "Chair", urls: Any = (A,)) -> dict[str, Any]:
    return {"serialNumber": serial, "productName": name, "inputUrls": urls}


async def test_a_good_file_is_called_valid_and_counted(service: Service) -> None:
    csv = HEADER + f'1,Chair,"{A}, {B}"\n2,Lamp,{B}\n'
    assert await tried(service, csv) == {
        "valid": True,
        "products": 2,
        "images": 3,
        "distinctUrls": 2,
        "problems": [],
        "moreProblems": 0,
        "duplicates": [
            {
                "field": "inputUrl",
                "value": B,
                "count": 2,
                "locs": [["line", 2, "inputUrls", 1], ["line", 3, "inputUrls", 0]],
            }
        ],
        "moreDuplicates": 0,
    }


async def test_every_line_of_a_csv_is_looked_at_in_every_respect(service: Service) -> None:
    csv = HEADER.encode() + (
        f"1,,{A}\n"
        "2,Lamp,ftp://example.com/a\n"
        f'\n3,"Two\nlines","{A}, http://169.254.169.254/b"\n'
        f",Caf\xe9,{A}\n"
        f"1,Chair,{A},red\n"
    ).encode("latin-1")
    answer = await tried(service, csv, webhookUrl="hook", options='{"quality":101}')
    assert not answer["valid"]
    assert [p["loc"] for p in answer["problems"]] == [
        ["options", "quality"],
        ["webhookUrl"],
        ["line", 2, "Product Name"],
        ["line", 3, "inputUrls", 0],
        ["line", 5, "inputUrls", 1],
        ["line", 7],
        ["line", 7, "Serial Number"],
        ["line", 8],
    ]
    assert answer["problems"][2]["msg"] == EMPTY
    assert (answer["products"], answer["images"], answer["distinctUrls"]) == (5, 5, 3)


async def test_every_product_of_json_is_looked_at_in_every_respect(service: Service) -> None:
    products = [
        product(name=5),
        product(urls=[A, "http://169.254.169.254/b"]),
        "no product",
        product(serial="", urls=[B, "ftp://example.com/a"]),
        product(urls=[A, 7]),
        {"serialNumber": "4", "color": "red"},
    ]
    answer = await tried(service, {"products": products, "x": 1}, "application/json")
    assert not answer["valid"]
    assert [p["loc"] for p in answer["problems"]] == [
        ["x"],
        ["products", 0, "productName"],
        ["products", 1, "inputUrls", 1],
        ["products", 2],
        ["products", 3, "serialNumber"],
        ["products", 3, "inputUrls", 1],
        ["products", 4, "inputUrls", 1],
        ["products", 5, "productName"],
        ["products", 5, "inputUrls"],
        ["products", 5, "color"],
    ]
    assert (answer["products"], answer["images"]) == (6, 5)
    assert answer["duplicates"][0] == {
        "field": "serialNumber",
        "value": "1",
        "count": 3,
        "locs": [["products", 0], ["products", 1], ["products", 4]],
    }


async def test_a_form_is_tried_like_a_csv(service: Service) -> None:
    form = aiohttp.FormData()
    form.add_field("file", HEADER + f"1,,{A}\n", filename="products.csv")
    form.add_field("options", "{")
    status, answer = await service.post("/api/upload?validate=true", data=form)
    assert status == 200
    places = [["options"], ["line", 2, "Product Name"]]
    assert [problem["loc"] for problem in answer["problems"]] == places
    assert (await service.get("/api/requests"))[1]["requests"] == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("{", "application/json"),
        ("[]", "application/json"),
        ("{}", "application/json"),
        ("", "text/csv"),
        (HEADER, "text/csv"),
        (HEADER.encode("utf-16")[2:], "text/csv"),
    ],
)
async def test_what_cannot_be_read_at_all_is_a_problem_too(
    service: Service, body: str, kind: str
) -> None:
    answer = await tried(service, body, kind)
    assert not answer["valid"]
    assert answer["problems"]
    assert (answer["products"], answer["images"]) == (0, 0)


async def test_what_is_listed_is_bounded_and_the_rest_is_counted(service: Service) -> None:
    csv = HEADER + "".join(f"{i % 150},,{A}?{i % 200}\n" for i in range(400))
    answer = await tried(service, csv)
    assert [p["loc"][1] for p in answer["problems"]] == list(range(2, 102))
    assert (len(answer["problems"]), answer["moreProblems"]) == (100, 300)
    assert (len(answer["duplicates"]), answer["moreDuplicates"]) == (100, 250)
    assert answer["duplicates"][0]["count"] == 3
    often = await tried(service, HEADER + f"1,Chair,{A}\n" * 400)
    assert [(d["count"], len(d["locs"])) for d in often["duplicates"]] == [(400, 5), (400, 5)]


async def test_too_much_is_counted_to_be_split(start_service: Any) -> None:
    service = await start_service(http={"max_products": 2, "max_images": 3})
    csv = HEADER + f'1,Chair,"{A}, {B}"\n' * 5
    answer = await tried(service, csv)
    assert answer["products"] == 5
    assert [p["msg"].split(" are ")[0] for p in answer["problems"]] == ["5 products", "4 images"]


async def test_false_is_no_dry_run_and_nonsense_is_refused(
    service: Service, origin: Origin
) -> None:
    body = {"products": [product(urls=[origin.url("rocket.jpg")])]}
    status, problem = await service.post("/api/upload?validate=maybe", json=body)
    assert (status, problem["errors"][0]["loc"]) == (422, ["validate"])
    # What belongs into the body would otherwise be overlooked in silence.
    status, problem = await service.post("/api/upload?webhookUrl=https://example.com", json=body)
    assert (status, problem["errors"][0]["loc"]) == (422, ["webhookUrl"])
    status, answer = await service.post("/api/upload?validate=false", json=body)
    assert status == 202
    await service.finished(answer["requestId"])
