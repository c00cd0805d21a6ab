"""CSV in and out: what people post is read, what is wrong is named, and reports come back."""

from __future__ import annotations

import csv
import io
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc import report
from imgsvc.findings import MOST, Findings
from imgsvc.model import ImageStatus
from imgsvc.report import Columns, ReportImage, ReportRow, Row, header, line

HEADER = "Serial Number,Product Name,Input Image Urls\n"
ROW = "S1,Chair,https://a/1.jpg\n"
FULL_WIDTH = "\uff1d\uff0b\uff0d\uff20"  # = + - @
CHAIR = Row(2, "S1", "Chair", ("https://a/1.jpg",))


def done(url: str, **more: Any) -> ReportImage:
    return ReportImage(input_url=url, status=ImageStatus.COMPLETED, **more)


def failed(url: str, code: str = "DNS_FAILED", **more: Any) -> ReportImage:
    return ReportImage(input_url=url, status=ImageStatus.FAILED, error_code=code, **more)


def parse(body: bytes, max_rows: int = 1000) -> list[Row]:
    """The rows of a file with which nothing is wrong."""
    findings = Findings()
    sheet = report.parse(body, findings, max_rows=max_rows)
    assert findings.listed == []
    assert sheet.count >= len(sheet.rows)
    return list(sheet.rows)


def found(text: str | bytes) -> Findings:
    """What is wrong with a file."""
    findings = Findings()
    report.parse(text if isinstance(text, bytes) else text.encode(), findings, max_rows=1000)
    assert findings.count
    return findings


def locs(text: str | bytes) -> list[list[Any]]:
    return [entry["loc"] for entry in found(text).listed]


def urls_of(cell: str) -> tuple[str, ...]:
    quoted = cell.replace('"', '""')
    return parse(f'{HEADER}S1,Chair,"{quoted}"\n'.encode(), max_rows=1)[0].urls


def cells_of(text: bytes) -> list[str]:
    """One line as another CSV reader sees it."""
    (cells,) = csv.reader(io.StringIO(text.decode(), newline=""))
    return cells


# --- in: what is read ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        (HEADER + ROW).encode(),
        (HEADER + ROW).encode("utf-8-sig"),
        (HEADER + ROW).replace("\n", "\r\n").encode(),
        (HEADER + ROW).replace("\n", "\r").encode(),
        (HEADER + ROW).replace(",", ";").encode(),
        (HEADER + ROW).replace(",", "\t").encode("utf-16"),
        (HEADER + ROW).rstrip("\n").encode(),
        b"serial_number,PRODUCT NAME,inputImageUrls\n" + ROW.encode(),
        b' "Serial Number" , Product  Name ,Input_Image_URLs\n'.replace(b'" ,', b'",')
        + ROW.encode(),
        b"\xa0Serial\xa0Number,Product Name ,INPUT IMAGE URLS\n".replace(b"\xa0", b"\xc2\xa0")
        + ROW.encode(),
        b"Input Image URLs,Serial Number,Product Name\nhttps://a/1.jpg,S1,Chair\n",
        b"Serial Number,Output Image URLs,Product Name,Input Image URLs\nS1,x,Chair,https://a/1.jpg",
        (HEADER.rstrip() + ",,\n" + ROW.rstrip() + ",,,,\n").encode(),
        (HEADER + ' S1 , Chair\t, "https://a/1.jpg"\n').encode(),
    ],
)
def test_every_spelling_of_the_same_file_is_the_same_row(body: bytes) -> None:
    assert parse(body, max_rows=1) == [CHAIR]


def test_line_breaks_in_header_cells_do_not_hide_the_separator() -> None:
    body = '"Serial\nNumber";"Product\r\nName";"Input\nImage URLs";"Output, Image, URLs"\n'
    body = body.replace(", ", " ") + "S1;Chair, red;https://a/1.jpg;\n"
    assert parse(body.encode()) == [Row(5, "S1", "Chair, red", ("https://a/1.jpg",))]


def test_lines_are_counted_through_blank_lines_and_quoted_newlines() -> None:
    body = f'\n{HEADER}\n,,\n"S\n1",Chair,https://a/1\n\nS2,Table,https://a/2\n'
    assert [(row.line, row.serial_number) for row in parse(body.encode(), max_rows=2)] == [
        (5, "S\n1"),
        (8, "S2"),
    ]


def test_the_header_may_come_after_blank_lines() -> None:
    body = ("\n;;\n" + HEADER + ROW).replace(",", ";")
    assert parse(body.encode(), max_rows=1)[0].line == 4


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_may_be_told_to_excel_in_a_line_of_its_own(separator: str) -> None:
    body = f"\ufeffsep={separator}\r\n" + (HEADER + ROW).replace(",", separator)
    assert [row.line for row in parse(body.encode())] == [3]
    assert locs(f"sep={separator}\n") == [["line", 1, title] for title in report._REQUIRED]


def test_only_the_header_line_decides_the_separator() -> None:
    body = "Serial Number;Product Name;Input Image Urls\nS,1,,,;a,b\tc;https://a/1,2\n"
    assert parse(body.encode(), max_rows=1) == [Row(2, "S,1,,,", "a,b\tc", ("https://a/1,2",))]


@pytest.mark.parametrize(
    ("cell", "urls"),
    [
        ("https://a/1,https://a/2", ("https://a/1", "https://a/2")),
        (" https://a/1 , HTTP://a/2 ", ("https://a/1", "HTTP://a/2")),
        ("https://a/1\nhttps://a/2\r\nhttps://a/3", ("https://a/1", "https://a/2", "https://a/3")),
        ("https://a/1 https://a/2;https://a/3", ("https://a/1", "https://a/2", "https://a/3")),
        ("https://a/w_1,h_2/x.jpg,https://a/2", ("https://a/w_1,h_2/x.jpg", "https://a/2")),
        ("https://a/1,, https://a/2,", ("https://a/1,", "https://a/2,")),
        ("https://a/?u=http://b/,c", ("https://a/?u=http://b/,c",)),
        (", https://a/1", ("https://a/1",)),
        ("ftp://a/1, b.jpg", ("ftp://a/1, b.jpg",)),
        ("nonsense, https://a/1", ("nonsense", "https://a/1")),
        ("'=1", ("=1",)),
    ],
)
def test_a_separator_splits_only_before_a_new_url(cell: str, urls: tuple[str, ...]) -> None:
    assert urls_of(cell) == urls


def test_splitting_stays_linear_on_a_cell_made_to_be_slow() -> None:
    begin = time.process_time()
    urls_of("x" + " ," * 60_000 + "x")
    urls_of("x" + " " * 120_000 + "x")
    urls_of("'" * 120_000 + "x")
    assert time.process_time() - begin < 1


# --- in: what is refused ------------------------------------------------------------------


def test_every_problem_is_told_with_its_line_and_column() -> None:
    body = f"{HEADER},Chair,https://a/1\nS2,Table\nS3,Lamp,https://a/1,red\n"
    findings = found(body)
    assert [entry["loc"] for entry in findings.listed] == [
        ["line", 2, "Serial Number"],
        ["line", 3, "Input Image URLs"],
        ["line", 4],
    ]
    assert findings.listed[0]["msg"] == "is empty; fill it in or remove the line"
    assert 'put " around' in findings.listed[2]["msg"]


def test_rows_are_looked_at_however_wrong_the_header_and_the_encoding_are() -> None:
    body = f"Price,{HEADER}9,S1,Caf\xe9,https://a/1\n9,S2,,https://a/2\n9,,A,https://a/3\n"
    assert locs(body.encode("latin-1")) == [
        ["line", 1, "Price"],
        ["line", 2],
        ["line", 3, "Product Name"],
        ["line", 4, "Serial Number"],
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_line_in_another_encoding_is_told(newline: str) -> None:
    lines = [HEADER.rstrip(), '"S\n1",Caf\xe9,https://a/1', ROW.rstrip(), "S3,Caf\xe9,https://a/1"]
    body = newline.join(lines).encode("cp1252")
    assert locs(body) == [["line", 3], ["line", 5]]
    assert found(body).listed[0]["msg"] == "is not readable as UTF-8; save the file as CSV UTF-8"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            [
                ["line", 1, "Serial Number"],
                ["line", 1, "Product Name"],
                ["line", 1, "Input Image URLs"],
            ],
        ),
        ("\nSerial Number,Product Name\n", [["line", 2, "Input Image URLs"]]),
        (f"Price,{HEADER}9,{ROW}", [["line", 1, "Price"]]),
        (f"serial number,{HEADER}S1,{ROW}", [["line", 1, "Serial Number"]]),
        (HEADER, [["line", 1]]),
        (f'{HEADER}{ROW}S2,Chair,"https://a\n{ROW}', [["line", 3]]),
        (f'{HEADER}{ROW}S2,"Chair" x,https://a\n', [["line", 3]]),
        (
            f'{HEADER}S1,,https://a\nS2,"Chair" x,https://a\n',
            [["line", 2, "Product Name"], ["line", 3]],
        ),
        (f"{HEADER}{ROW}S2,{'x' * 200_000},https://a\n", [["line", 3]]),
        (f"{HEADER}{ROW}S2,Ch\0air,https://a\n", [["line", 3]]),
        ((HEADER + ROW).encode() + b"S2,Caf\xe9,https://a\n", [["line", 3]]),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"S2,Caf\xe9,https://a\n", [["line", 2]]),
        ((HEADER + ROW + "S\ud800" + ROW).encode("utf-16", "surrogatepass"), [["line", 3]]),
        ((HEADER + ROW).encode("utf-16")[:-1], [["line", 2]]),
    ],
)
def test_an_unusable_file_names_the_place(text: str | bytes, expected: list[list[Any]]) -> None:
    assert locs(text) == expected


def test_an_unknown_column_is_answered_with_the_known_ones() -> None:
    assert (
        "Known: Serial Number, Product Name, Input Image URLs, Output Image URLs, Status,"
        in (found(f"Price,{HEADER}{ROW}").listed[0]["msg"])
    )


def test_problems_are_all_counted_and_not_all_listed() -> None:
    findings = found(HEADER + ",,x\n" * 500)
    assert (len(findings.listed), findings.count, findings.more) == (MOST, 1000, 1000 - MOST)
    assert len(str(found(f"{'x' * 10_000},{HEADER}").listed)) < 1000
    assert len(locs("x," * 500 + HEADER)) == MOST


def test_texts_are_as_bounded_as_in_json() -> None:
    rows = (
        f"1,{'n' * 501},http://a.bc/\n{'s' * 501},Lamp,http://a.bc/\n1,{'n' * 500},http://a.bc/\n"
    )
    assert locs(HEADER + rows) == [["line", 2, "Product Name"], ["line", 3, "Serial Number"]]


def test_more_rows_than_wanted_are_only_counted() -> None:
    findings = Findings()
    sheet = report.parse((HEADER + ROW * 2 + ",,x\n").encode(), findings, max_rows=2)
    assert ([row.line for row in sheet.rows], sheet.count) == ([2, 3], 3)
    assert findings.count == 0


@pytest.mark.parametrize(
    "body",
    [
        (HEADER + ",,x\n" * 2_000_000).encode(),
        HEADER.encode() + b"\xe9\n" * 4_000_000,
        b"x," * 4_000_000,
    ],
    ids=["rows", "encoding", "columns"],
)
def test_a_file_that_is_nothing_but_wrong_is_not_read_to_its_end(body: bytes) -> None:
    begin = time.process_time()
    findings = Findings()
    report.parse(body, findings, max_rows=100_000)
    assert len(findings.listed) == MOST
    assert 10_000 <= findings.count < 10_010
    assert time.process_time() - begin < 4


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: (HEADER + t).encode()))
def test_any_bytes_are_rows_or_have_something_found_in_them(body: bytes) -> None:
    findings = Findings()
    sheet = report.parse(body, findings, max_rows=3)
    if not findings.count:
        assert sheet.rows
        assert all(row.serial_number and row.product_name and row.urls for row in sheet.rows)


# --- out ----------------------------------------------------------------------------------


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
    again = parse(header("failed") + line(THREE, "failed"), max_rows=1)
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


names = (
    st.tuples(
        st.sampled_from(
            [
                "",
                "'",
                "''",
                " ",
                "=",
                "'=",
                " '=",
                "-",
                "-1",
                "'-1",
                "'\t",
                "\uff1d",
                '"',
                ";",
                "\ufeff",
            ]
        ),
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    )
    .map("".join)
    .filter(str.strip)
)
urls = st.builds(
    "{}://{}".format,
    st.sampled_from(["http", "https", "HTTP", "Https"]),
    st.text(st.sampled_from("abhtps0/:.,;\"'=+@&?%~#é"), min_size=1),
).filter(lambda url: not re.search(r"[,;]https?://", url, re.IGNORECASE))
images = st.builds(
    ReportImage,
    input_url=urls,
    status=st.just(ImageStatus.FAILED),
    output_url=st.none() | urls,
    error_code=st.just("TOO_LARGE"),
    error_detail=st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    bytes_in=st.none() | st.integers(0),
)
products = st.lists(
    st.builds(ReportRow, names, names, st.lists(images, min_size=1, max_size=4)), min_size=1
)


@pytest.mark.parametrize("columns", ["basic", "full", "failed"])
@given(rows=products)
def test_every_report_can_be_posted_again(columns: Columns, rows: list[ReportRow]) -> None:
    body = header(columns) + b"".join(line(row, columns) for row in rows)
    assert [
        (row.serial_number, row.product_name, row.urls) for row in parse(body, max_rows=len(rows))
    ] == [
        (
            row.serial_number.strip(),
            row.product_name.strip(),
            tuple(image.input_url for image in row.images),
        )
        for row in rows
    ]


@given(rows=products)
def test_no_cell_of_any_report_begins_as_a_formula(rows: list[ReportRow]) -> None:
    for row in rows:
        for cell in cells_of(line(row, "full")):
            try:
                float(cell)
            except ValueError:
                assert not cell.startswith(tuple("=+-@\t\r\n\0" + FULL_WIDTH))


def test_urls_that_nobody_quoted_are_taken_together() -> None:
    body = b"Serial Number,Product Name,Input Image Urls\n1,A,http://a/1, https://b/2,http://c/3\n"
    assert parse(body, max_rows=9)[0].urls == ("http://a/1", "https://b/2", "http://c/3")


def test_cells_too_many_that_are_no_urls_are_refused() -> None:
    body = b"Serial Number,Product Name,Input Image Urls\n1,A,http://a/1,red\n"
    assert locs(body) == [["line", 2]]
