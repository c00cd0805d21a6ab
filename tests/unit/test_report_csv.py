"""CSV out: the report of a request, and that it can be posted again as it is."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.domain.model import ImageStatus
from imgsvc.reports import upload_csv
from imgsvc.reports.report_csv import ReportImage, ReportRow, header, line
from imgsvc.reports.upload_csv import Row

FULL_WIDTH = "\uff1d\uff0b\uff0d\uff20"  # = + - @


def done(url: str, **more: Any) -> ReportImage:
    return ReportImage(input_url=url, status=ImageStatus.COMPLETED, **more)


def failed(url: str, code: str = "DNS_FAILED", **more: Any) -> ReportImage:
    return ReportImage(input_url=url, status=ImageStatus.FAILED, error_code=code, **more)


def parse(body: bytes) -> list[Row]:
    """The rows of a file with which nothing is wrong."""
    read = upload_csv.parse(body, max_rows=1000)
    assert read.problems.listed == []
    return list(read.rows)


def cells_of(text: bytes) -> list[str]:
    """One line as another CSV reader sees it."""
    (cells,) = csv.reader(io.StringIO(text.decode(), newline=""))
    return cells


def test_headers_to_the_letter() -> None:
    assert header() == b"Serial Number,Product Name,Input Image URLs,Output Image URLs\r\n"
    assert header("full") == (
        b"Serial Number,Product Name,Input Image URLs,Output Image URLs,Status,Error Codes,"
        b"Error Details,Bytes In,Bytes Out,Formats,Widths,Heights,Notes\r\n"
    )
    assert header("failed") == b"Serial Number,Product Name,Input Image URLs,Error Codes\r\n"


THREE = ReportRow(
    "S1",
    'Chair, "red"',
    [
        done(
            "http://i/1",
            output_url="http://o/1",
            bytes_in=9,
            bytes_out=5,
            format="jpeg",
            width=4,
            height=3,
            note="encoded",
        ),
        failed("http://i/2", "FETCH_STATUS", error_detail="It said 404, so there."),
        done(
            "http://i/3",
            output_url="http://o/3",
            bytes_in=8,
            bytes_out=4,
            format="png",
            width=2,
            height=1,
            note="stripped",
        ),
    ],
)


def test_a_failed_image_leaves_an_empty_place() -> None:
    assert line(THREE) == (
        b'"S1","Chair, ""red""","http://i/1, http://i/2, http://i/3","http://o/1, , http://o/3"\r\n'
    )


def test_the_full_report_is_aligned_in_every_column() -> None:
    assert cells_of(line(THREE, "full"))[3:] == [
        "http://o/1, , http://o/3",
        "COMPLETED, FAILED, COMPLETED",
        ", FETCH_STATUS, ",
        ", It said 404; so there., ",
        "9, , 8",
        "5, , 4",
        "jpeg, , png",
        "4, , 2",
        "3, , 1",
        "encoded, , stripped",
    ]


def test_the_failed_report_is_what_to_post_again() -> None:
    assert line(THREE, "failed") == b'"S1","Chair, ""red""","http://i/2","FETCH_STATUS"\r\n'
    assert line(ReportRow("S2", "Table", [done("http://i/1")]), "failed") == b""
    again = parse(header("failed") + line(THREE, "failed"))
    assert again == [Row(2, "S1", 'Chair, "red"', ("http://i/2",))]


@pytest.mark.parametrize(
    "first", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", *FULL_WIDTH, " =", "'="]
)
def test_what_a_spreadsheet_would_run_gets_a_quote_in_front(first: str) -> None:
    text = first + "cmd|' /C calc'!A0"
    assert cells_of(line(ReportRow(text, text, [done("http://i")])))[:2] == ["'" + text] * 2


@pytest.mark.parametrize("text", ["-12", "+3.5", "12", "'quoted'", "a=1", "", "-"])
def test_numbers_and_harmless_text_are_left_alone(text: str) -> None:
    expected = "'-" if text == "-" else text  # a lone minus is no number
    assert cells_of(line(ReportRow(text, "x", [done("http://i")])))[0] == expected


def test_a_name_cannot_begin_a_cell_of_its_own_elsewhere() -> None:
    """LibreOffice also splits unquoted text at ; and tab."""
    assert b'"x;=1+1\t=2"' in line(ReportRow("S1", "x;=1+1\t=2", [done("http://i")]))


texts = st.text(st.characters(codec="utf-8"))
images = st.builds(
    ReportImage,
    input_url=texts.map("http://{}".format),
    status=st.just(ImageStatus.FAILED),
    output_url=st.none() | texts,
    error_code=st.just("TOO_LARGE"),
    error_detail=st.none() | texts,
    bytes_in=st.none() | st.integers(),
)
products = st.lists(
    st.builds(
        ReportRow,
        st.tuples(st.sampled_from([*"'=-\t\uff1d", " =", "''@"]), texts).map("".join),
        texts,
        st.lists(images, min_size=1, max_size=4),
    ),
    min_size=1,
)


@given(rows=products)
def test_no_cell_of_any_report_begins_as_a_formula(rows: list[ReportRow]) -> None:
    for row in rows:
        for cell in cells_of(line(row, "full")):
            try:
                float(cell)
            except ValueError:
                assert not cell.startswith(tuple("=+-@\t\r\n\0" + FULL_WIDTH))
