"""A serial number is an integer or a string, and comes back as it was posted."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from imgsvc.cli.main import cli
from tests.support import Origin, Service, wait_until

INTEGERS = [1, 0, -1, 2**31, 2**53 - 1, 2**53 + 1, 2**63 - 1, -(2**63)]
TEXTS = ["1", "007", "-0", "1e3", "1.0", "true", "null", "=1+1", "日本", " a", "9" * 500]
JSON = {"Content-Type": "application/json"}


def product(serial: str, url: str = "https://example.com/a.jpg") -> str:
    """A product as text, so that a number is written as the case writes it."""
    return f'{{"serialNumber":{serial},"productName":"A","inputUrls":[{json.dumps(url)}]}}'


async def posted(service: Service, *products: str) -> tuple[int, Any]:
    body = f'{{"products":[{",".join(products)}]}}'
    return await service.post("/api/upload", data=body.encode(), headers=JSON)


async def test_each_comes_back_as_it_was_posted(service: Service, origin: Origin) -> None:
    serials = [*INTEGERS, *TEXTS]
    status, answer = await posted(
        service, *(product(json.dumps(each), origin.url("none")) for each in serials)
    )
    assert status == 202, answer
    request_id = answer["requestId"]
    await service.finished(request_id)
    async with service.session.get(f"{service.url}/api/requests/{request_id}/images") as response:
        text = await response.text()
    found = [image["serialNumber"] for image in json.loads(text)["images"]]
    assert [(type(each), each) for each in found] == [(type(each), each) for each in serials]
    for number in INTEGERS:  # in its digits, whatever a reader makes of more than 2^53
        assert f'"serialNumber":{number},' in text

    # In CSV all are texts; spreadsheets are told which are no formulas, and readers which blanks stay.
    written = {"=1+1": "'=1+1", " a": "' a'"}
    for query in ({}, {"columns": "full"}, {"only": "failed"}):
        rows = await service.report(request_id, **query)
        shown = [row["Serial Number"] for row in rows]
        assert shown == [written.get(str(each), str(each)) for each in serials]


REFUSED = [
    ("true", "integer like 7"),
    ("false", "integer like 7"),
    ("1.0", "integer like 7"),
    ("1.5", "integer like 7"),
    ("1e3", "integer like 7"),
    ("-0.0", "integer like 7"),
    ("null", "integer like 7"),
    ("[1]", "integer like 7"),
    ('{"a":1}', "integer like 7"),
    (str(2**63), "send it as a string"),
    (str(-(2**63) - 1), "send it as a string"),
    (str(2**64), "send it as a string"),
    ("1" * 4000, "send it as a string"),
    ('""', "1 to 500"),
    (json.dumps("x" * 501), "1 to 500"),
]


async def test_anything_else_is_refused_with_its_place_and_a_remedy(service: Service) -> None:
    for written, remedy in REFUSED:
        status, problem = await posted(service, product("1"), product(written))
        assert (status, problem["code"]) == (422, "VALIDATION_FAILED"), written
        [error] = problem["errors"]
        assert error["loc"] == ["products", 1, "serialNumber"], written
        assert remedy in error["msg"]


async def test_what_json_does_not_call_a_number_is_no_json(service: Service) -> None:
    for written in ["01", "+1", "0x1", "1_000", "NaN", "-Infinity", "1" * 5000]:
        status, problem = await posted(service, product(written))
        assert (status, problem["code"]) == (400, "INVALID_JSON"), written
        assert "sys." not in problem["detail"], written


async def mixed(service: Service, origin: Origin) -> str:
    """An ended request whose images all failed, with serial numbers of both kinds."""
    for n in range(6):
        origin.add(f"{n}.png", b"no picture")
    serials = ["7", '"A"', '"7"', "100", '"12"', "9007199254740993"]
    _, answer = await posted(
        service, *(product(each, origin.url(f"{n}.png")) for n, each in enumerate(serials))
    )
    await service.finished(answer["requestId"])
    return str(answer["requestId"])


NAMED = [
    ("7", [0, 2]),  # a serial number, as a product has this integer as its own
    ('"7"', [0, 2]),
    ('"A"', [1]),
    ("100", [3]),
    ('"100"', [3]),
    ('"12"', [4]),
    ("1", [1]),  # no product has it as an integer: a product's number, as ever
    ("4", [4]),
    ("0", [0]),
    ("9007199254740993", [5]),
    ("12", [4]),  # there is no product with this number
    ('"9007199254740993"', [5]),
    ('7,"A",3', [0, 1, 2, 3]),
]


async def retried(service: Service, request_id: str, named: str) -> tuple[int, Any]:
    body = f'{{"products":[{named}]}}'.encode()
    return await service.post(f"/api/requests/{request_id}/retry", data=body, headers=JSON)


async def test_retry_finds_both_kinds(service: Service, origin: Origin) -> None:
    for named, meant in NAMED:
        request_id = await mixed(service, origin)
        for n in range(6):
            origin.add(f"{n}.png", origin.photo("rocket.jpg"))
        status, answer = await retried(service, request_id, named)
        assert status == 202, answer
        await service.finished(request_id)
        images = await service.images(request_id)
        done = [image["product"] for image in images if image["status"] == "COMPLETED"]
        assert done == meant, named


async def test_retry_finds_nothing_else(service: Service, origin: Origin) -> None:
    request_id = await mixed(service, origin)
    for named in [
        '"07"',
        '"7.0"',
        '"+7"',
        '" 7"',
        "13",
        "9223372036854775807",
        '"99999999999999999999"',
    ]:
        status, answer = await retried(service, request_id, named)
        assert (status, answer["code"]) == (409, "NOTHING_TO_RETRY"), named


async def test_a_serial_number_below_zero_can_be_retried(service: Service, origin: Origin) -> None:
    _, answer = await posted(service, product("-1", origin.url("none.png")))
    request_id = answer["requestId"]
    await service.finished(request_id)
    path = f"/api/requests/{request_id}/retry"
    status, problem = await service.post(path, json={"products": [-2]})
    assert (status, problem["errors"][0]["loc"]) == (422, ["products", 0])
    assert (await service.post(path, json={"products": [-1]}))[0] == 202
    await service.finished(request_id)


async def test_a_dry_run_knows_them(service: Service) -> None:
    body = f'{{"products":[{",".join(map(product, ("7", "8", "7", chr(34) + "8" + chr(34))))}]}}'
    _, tried = await service.post("/api/upload?validate=true", data=body.encode(), headers=JSON)
    assert tried["valid"]
    doubled = [d for d in tried["duplicates"] if d["field"] == "serialNumber"]
    assert [(d["value"], d["count"]) for d in doubled] == [(7, 2), (8, 2)]


async def test_a_report_with_them_can_be_posted_again(service: Service, origin: Origin) -> None:
    _, answer = await posted(service, product("-5", origin.url("none")), product("12"))
    await service.finished(answer["requestId"])
    async with service.session.get(f"{service.url}/download/{answer['requestId']}") as response:
        report = await response.read()
    assert [row[0] for row in csv.reader(io.StringIO(report.decode()))] == [
        "Serial Number",
        "-5",
        "12",
    ]
    status, answer = await service.post(
        "/api/upload", data=report, headers={"Content-Type": "text/csv"}
    )
    assert status == 202, answer
    await service.finished(answer["requestId"])
    assert [i["serialNumber"] for i in await service.images(answer["requestId"])] == ["-5", "12"]


async def test_the_client_shows_saves_and_retries_them(
    service: Service, origin: Origin, tmp_path: Path
) -> None:
    import asyncio

    file = tmp_path / "products.json"
    file.write_text(
        f'{{"products":[{product("7", origin.url("rocket.jpg"))},'
        f"{product('8', origin.url('late.jpg'))}]}}"
    )

    async def run(*words: str) -> str:
        result = await asyncio.to_thread(
            CliRunner().invoke, cli, [*words, "--server", service.url], catch_exceptions=False
        )
        return result.output

    await run("submit", str(file), "--download", str(tmp_path / "results"))
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["7"]
    [found] = (await service.get("/api/requests"))[1]["requests"]
    request_id = found["requestId"]
    assert "8 " in await run("images", request_id, "--status", "FAILED")
    origin.add("late.jpg", origin.photo("rocket.jpg"))
    await run("retry", request_id, "--product", "8", "--wait")

    async def completed() -> bool:
        return (await service.get(f"/status/{request_id}"))[1]["status"] == "COMPLETED"

    await wait_until(completed, "the retried image is there")
