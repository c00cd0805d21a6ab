"""Reports go through a spreadsheet and come back: as they are, or with what failed put right."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

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


async def posted(service: Service, report: bytes) -> list[dict[str, Any]]:
    """What a report becomes when it is posted."""
    status, answer = await service.post(
        "/api/upload", data=report, headers={"Content-Type": "text/csv"}
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


async def test_a_report_saved_in_another_encoding_names_the_lines(
    service: Service, partial: str
) -> None:
    report = (await downloaded(service, partial)).decode().encode("cp1252")
    status, problem = await service.post(
        "/api/upload", data=report, headers={"Content-Type": "text/csv"}
    )
    assert (status, problem["code"]) == (422, "INVALID_CSV")
    assert [error["loc"] for error in problem["errors"]] == [["line", 5]]
    assert problem["detail"] == "Line 5: is not readable as UTF-8; save the file as CSV UTF-8"
