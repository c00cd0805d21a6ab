"""Reports go through a spreadsheet and come back: as they are, or with what failed put right."""

from __future__ import annotations

import asyncio
import codecs
import csv
import io
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Origin, Service


@pytest.fixture
async def partial(service: Service, origin: Origin) -> str:
    """A finished request of three products, one image of the first and one of the last missing."""
    good, bad = origin.url("rocket.jpg"), origin.url("gone.jpg")
    names = ['=1+1; "red"', "Plain", "Two\nlines, née Lämp"]
    products = [
        {"serialNumber": f"-{i}", "productName": name, "inputUrls": urls}
        for i, (name, urls) in enumerate(
            zip(names, ([good, bad], [good], [bad]), strict=True), start=1
        )
    ]
    _, answer = await service.post("/api/upload", json={"products": products})
    await service.finished(answer["requestId"])
    return str(answer["requestId"])


async def downloaded(service: Service, request_id: str, **query: str) -> bytes:
    async with service.session.get(f"{service.url}/download/{request_id}", params=query) as answer:
        assert answer.status == 200
        return await answer.read()


async def posted(
    service: Service, report: bytes, content_type: str = "text/csv"
) -> list[dict[str, Any]]:
    """What a report becomes when it is posted."""
    status, answer = await service.post(
        "/api/upload", data=report, headers={"Content-Type": content_type}
    )
    assert status == 202, answer
    await service.finished(answer["requestId"])
    return await service.images(answer["requestId"])


def asked(images: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    fields = ("product", "index", "serialNumber", "productName", "inputUrl")
    return [tuple(image[field] for field in fields) for image in images]


def from_excel(report: bytes, mended: dict[str, str]) -> bytes:
    """A report as Excel in Europe saves it after some texts were replaced."""
    rows = csv.reader(io.StringIO(report.decode(), newline=""))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";", lineterminator="\r\n")
    header = [f" {name.upper()} " for name in next(rows)]
    writer.writerow([*header, ""])
    for row in rows:
        cells = [*row, ""]
        for old, new in mended.items():
            cells = [cell.replace(old, new) for cell in cells]
        writer.writerow(cells)
    writer.writerow([""] * (len(header) + 1))
    return out.getvalue().encode("utf-8-sig")


@pytest.mark.parametrize("query", [{}, {"columns": "full"}])
async def test_a_report_can_be_posted_as_it_is(
    service: Service, partial: str, query: dict[str, str]
) -> None:
    report = await downloaded(service, partial, **query)
    wanted = asked(await service.images(partial))
    for body in (report, from_excel(report, {})):
        assert asked(await posted(service, body)) == wanted


async def test_the_failed_rows_put_right_make_a_request_with_only_those(
    service: Service, partial: str, origin: Origin
) -> None:
    report = await downloaded(service, partial, only="failed")
    assert b"FETCH_STATUS" in report
    assert [image["status"] for image in await posted(service, report)] == ["FAILED", "FAILED"]

    again = await posted(service, from_excel(report, {"gone.jpg": "coffee.png"}))
    mended = origin.url("coffee.png")
    assert asked(again) == [
        (0, 0, "-1", '=1+1; "red"', mended),
        (1, 0, "-3", "Two\nlines, née Lämp", mended),
    ]
    assert [image["status"] for image in again] == ["COMPLETED", "COMPLETED"]


async def test_a_report_saved_in_another_encoding_has_to_say_so(
    service: Service, partial: str
) -> None:
    report = (await downloaded(service, partial)).decode().encode("cp1252")
    status, problem = await service.post(
        "/api/upload", data=report, headers={"Content-Type": "text/csv"}
    )
    assert (status, problem["code"]) == (422, "INVALID_CSV")
    assert [error["loc"] for error in problem["errors"]] == [["line", 5]]
    assert problem["detail"].startswith("Line 5: is not readable as UTF-8; save the file as CSV")
    wanted = asked(await service.images(partial))
    assert asked(await posted(service, report, "text/csv; charset=windows-1252")) == wanted


ODD = [
    ["ORIGIN/a,http://b", "ORIGIN/c"],
    ["ORIGIN/a;https://b|http://c"],
    ["ORIGIN/a,", "ORIGIN/b;|"],
    ['ORIGIN/",http://b', "ORIGIN/[é]\uff0chttps://d"],
    ["ORIGIN/" + "x" * 1400] * 100,
]


async def test_any_accepted_json_comes_back_the_same(service: Service, origin: Origin) -> None:
    """Texts that CSV and spreadsheets make something else of, and URLs that look like several."""
    texts = [
        "007",
        " padded ",
        "'",
        "'=1",
        "=1",
        "\t@",
        "-5",
        "\r\nA\r\n",
        '"',
        "sep=;",
        "'x '",
        "\ufeff",
    ]
    odd = [[url.replace("ORIGIN", origin.base) for url in urls] for urls in ODD]
    products = [
        {"serialNumber": text, "productName": text + "é", "inputUrls": urls}
        for text, urls in itertools.zip_longest(texts, odd, fillvalue=odd[0])
    ]
    status, answer = await service.post("/api/upload", json={"products": products})
    assert status == 202, answer
    await service.finished(answer["requestId"])
    wanted = asked(await service.images(answer["requestId"]))
    assert [image[-1] for image in wanted if image[0] < len(odd)] == [*itertools.chain(*odd)]
    for query in ({}, {"columns": "full"}, {"only": "failed"}, {"bom": "true"}):
        report = await downloaded(service, answer["requestId"], **query)
        assert asked(await posted(service, report)) == wanted, query
    basic = await service.report(answer["requestId"])
    for row, product in zip(basic, products, strict=True):
        assert row["Output Image URLs"] == ", " * (len(product["inputUrls"]) - 1)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
async def test_random_json_comes_back_the_same(service: Service, origin: Origin) -> None:
    texts = st.text("'=\"a \t\n,;é\ufeff", max_size=5)
    texts = texts.map("B{}".format) | texts.map("{}B".format)
    urls = st.lists(st.sampled_from([*',;|a "[', "http://b", "\uff0c"]), max_size=5).map("".join)
    products = st.lists(
        st.tuples(texts, texts, st.lists(urls, min_size=1, max_size=3)), min_size=1, max_size=3
    )
    accepted = []

    async def once(drawn: list[tuple[str, str, list[str]]]) -> None:
        body = [
            {
                "serialNumber": serial,
                "productName": name,
                "inputUrls": [origin.url(url) for url in urls],
            }
            for serial, name, urls in drawn
        ]
        status, answer = await service.post("/api/upload", json={"products": body})
        if status == 422:
            return
        accepted.append(answer["requestId"])
        report = await downloaded(service, answer["requestId"], partial="true", columns="full")
        again = await posted(service, report)
        await service.finished(answer["requestId"])
        assert asked(again) == asked(await service.images(answer["requestId"]))

    loop = asyncio.get_running_loop()

    @settings(max_examples=25, deadline=None, database=None)
    @given(drawn=products)
    def explore(drawn: list[tuple[str, str, list[str]]]) -> None:
        asyncio.run_coroutine_threadsafe(once(drawn), loop).result(30)

    await asyncio.to_thread(explore)
    assert accepted


async def test_a_byte_order_mark_is_there_for_whom_asks(
    service: Service, start_service: Any, origin: Origin
) -> None:
    request_id = await service.upload([[origin.url("rocket.jpg")]])
    await service.finished(request_id)
    plain = await downloaded(service, request_id)
    assert plain.startswith(b"Serial Number,")
    assert await downloaded(service, request_id, bom="false") == plain
    marked = await downloaded(service, request_id, bom="true")
    assert marked == codecs.BOM_UTF8 + plain
    assert asked(await posted(service, marked)) == asked(await service.images(request_id))

    always = await start_service(http={"csv_bom": True})
    request_id = await always.upload([[origin.url("rocket.jpg")]])
    await always.finished(request_id)
    marked = await downloaded(always, request_id, only="failed")
    assert (
        marked == codecs.BOM_UTF8 + b"Serial Number,Product Name,Input Image URLs,Error Codes\r\n"
    )
    plain = await downloaded(always, request_id, bom="false")
    assert plain.startswith(b"Serial Number,")
