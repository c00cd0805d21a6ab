"""CSV in: what people post is read, and what is wrong is named with its line and column."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.domain.validation import MOST, ValidationProblems
from imgsvc.reports import upload_csv
from imgsvc.reports.columns import REQUIRED, RESULTS
from imgsvc.reports.upload_csv import LONGEST_CELL, Row

HEADER = "Serial Number,Product Name,Input Image Urls\n"
ROW = "S1,Chair,https://a/1.jpg\n"
FOUR = tuple(f"https://a/{n}" for n in (1, 2, 3, 4))
CHAIR = Row(2, "S1", "Chair", ("https://a/1.jpg",))


def parse(body: bytes, max_rows: int = 1000) -> list[Row]:
    """The rows of a file with which nothing is wrong."""
    found = upload_csv.parse(body, max_rows=max_rows)
    assert found.problems.listed == []
    assert found.count >= len(found.rows)
    return list(found.rows)


def found(text: str | bytes) -> ValidationProblems:
    """What is wrong with a file."""
    body = text if isinstance(text, bytes) else text.encode()
    problems = upload_csv.parse(body, max_rows=1000).problems
    assert problems.count
    return problems


def locs(text: str | bytes) -> list[list[Any]]:
    return [entry["loc"] for entry in found(text).listed]


def urls_of(cell: str) -> tuple[str, ...]:
    quoted = cell.replace('"', '""')
    return parse(f'{HEADER}S1,Chair,"{quoted}"\n'.encode(), max_rows=1)[0].urls


# --- in: what is read ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        (HEADER + ROW).encode(),
        (HEADER + ROW).encode("utf-8-sig"),
        (HEADER + ROW).replace("\n", "\r\n").encode(),
        (HEADER + ROW).replace("\n", "\r").encode(),
        (HEADER + ROW).replace(",", ";").encode(),
        (HEADER + ROW).replace(",", "\t").encode(),
        (HEADER + ROW).replace(",", "|").encode(),
        (HEADER + ROW).rstrip("\n").encode(),
        b"serial_number,PRODUCT NAME,inputImageUrls\n" + ROW.encode(),
        b"Serial-Number,product-name,Input-Image-Urls\n" + ROW.encode(),
        b"Serial No.,Name,Input Image URL\n" + ROW.encode(),
        b"S. No.,Product,Input URLs\n" + ROW.encode(),
        b"SKU,Title,Image Link\n" + ROW.encode(),
        b"sku,name,images\n" + ROW.encode(),
        b"Serial,Product Names,image_url\n" + ROW.encode(),
        b"serialNumber,productName,inputUrls\n" + ROW.encode(),
        b"SKU,Name,Image URL(s)\n" + ROW.encode(),
        b"SKU,Name,Image\n" + ROW.encode(),
        b"Images,Name,Notes,SKU\nhttps://a/1.jpg,Chair,passed over,S1\n",
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
    assert locs(f"sep={separator}\n") == [["line", 1, title] for title in REQUIRED]


def test_only_the_header_line_decides_the_separator() -> None:
    body = "Serial Number;Product Name;Input Image Urls\nS,1,,,;a,b\tc;https://a/1,2\n"
    assert parse(body.encode(), max_rows=1) == [Row(2, "S,1,,,", "a,b\tc", ("https://a/1,2",))]


@pytest.mark.parametrize(
    ("cell", "urls"),
    [
        ("https://a/1,", ("https://a/1",)),
        ("https://a/1, ", ("https://a/1",)),
        ("https://a/1;", ("https://a/1",)),
        ("https://a/1|", ("https://a/1",)),
        ("https://a/1\n", ("https://a/1",)),
        (" ;| https://a/1 |;, ", ("https://a/1",)),
        ("https://a/1,, https://a/2", ("https://a/1", "https://a/2")),
        ("https://a/1|https://a/2", ("https://a/1", "https://a/2")),
        ("https://a/1 | https://a/2 | ", ("https://a/1", "https://a/2")),
        ("https://a/1\uff0chttps://a/2\uff0c", ("https://a/1", "https://a/2")),
        ("https://a/1\u3001https://a/2\uff1bhttps://a/3\uff5chttps://a/4", FOUR),
        ("https://a/1,\nhttps://a/2,\r\nhttps://a/3\thttps://a/4\t", FOUR),
        ("https://a/1\xa0https://a/2\u200b,\ufeffhttps://a/3;;;|https://a/4\u3000", FOUR),
        ("https://a/1\u060chttps://a/2\u061b https://a/3\uff64https://a/4\u060c", FOUR),
        ("https://a/my photo.jpg, https://a/2", ("https://a/my photo.jpg", "https://a/2")),
        ("https://a/my photo.jpg\nhttps://a/2", ("https://a/my photo.jpg", "https://a/2")),
        ("https://a/1 https://a/my photo.jpg", ("https://a/1", "https://a/my photo.jpg")),
        ("https://a/w_1,h_2/https://b/,c//d", ("https://a/w_1,h_2/https://b/,c//d",)),
        ("https://a/?u=1%2Fhttps://b", ("https://a/?u=1%2Fhttps://b",)),
        ("https://a/id_/http://b/(https://c)", ("https://a/id_/http://b/(https://c)",)),
        ("https://a/f?x=a|b;c,d", ("https://a/f?x=a|b;c,d",)),
        ("https://a/High_Street,_London.jpg|", ("https://a/High_Street,_London.jpg",)),
        ('["https://a/1,http://b", "https://a/2,"]', ("https://a/1,http://b", "https://a/2,")),
        ("https://a/1,https://a/2", ("https://a/1", "https://a/2")),
        (" https://a/1 , HTTP://a/2 ", ("https://a/1", "HTTP://a/2")),
        ("https://a/1\nhttps://a/2\r\nhttps://a/3", ("https://a/1", "https://a/2", "https://a/3")),
        ("https://a/1 https://a/2;https://a/3", ("https://a/1", "https://a/2", "https://a/3")),
        ("https://a/w_1,h_2/x.jpg,https://a/2", ("https://a/w_1,h_2/x.jpg", "https://a/2")),
        ("https://a/?u=http://b/,c", ("https://a/?u=http://b/,c",)),
        (", https://a/1", ("https://a/1",)),
        ("nonsense, https://a/1", ("nonsense", "https://a/1")),
        ("'=1", ("=1",)),
    ],
)
def test_a_separator_splits_only_before_a_new_url(cell: str, urls: tuple[str, ...]) -> None:
    assert urls_of(cell) == urls


def test_splitting_stays_linear_on_a_cell_made_to_be_slow() -> None:
    begin = time.process_time()
    for cell in (
        "x" + " ," * 60_000,
        "x" + " " * 120_000,
        "'" * 120_000,
        "," * 120_000,
        ",_" * 60_000,
    ):
        urls_of(f"http://a{cell}http://b")
        found(f'{HEADER}S1,Chair,"http://a{cell}, x"\n')
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("https://a/1, not-a-url", '"not-a-url"'),
        ("https://a/1,https://a/2 ; b.jpg, https://a/3", '"b.jpg"'),
        ("https://a/1 |b.jpg", '"b.jpg"'),
        ("https://a/1\nb.jpg", '"b.jpg"'),
        ("https://a/1\uff0c b.jpg", '"b.jpg"'),
        ("https://a/1, ftp://a/2", '"ftp://a/2"'),
        ("ftp://a/1, b.jpg", '"b.jpg"'),
        ("https://a/1,ftp://a/2", '"ftp://a/2"'),
        ("https://a/1;s3://a/2", '"s3://a/2"'),
        ("https://a/1|//a/2", '"//a/2"'),
        ("https://a/1,www.a.com/2", '"www.a.com/2"'),
        ("https://a/1,data:image/png;base64,AA", '"data:image/png;base64,AA"'),
        ("https://a/1https://a/2", '"https://a/2"'),
        ("https://a/1.jpghttps://a/2", '"https://a/2"'),
        ("https://a/1<br>https://a/2", '"https://a/2"'),
        ("https://a/1\\nhttps://a/2", '"https://a/2"'),
        ('https://a/1"https://a/2', '"https://a/2"'),
        ("https://a/1\u00b7https://a/2", '"https://a/2"'),
        ("https://a/1\u2022HTTPS://a/2", '"HTTPS://a/2"'),
        ("https://a/1 - https://a/2", '"https://a/2"'),
        ("https://a/1 and https://a/2", '"https://a/2"'),
        ("https://a/my photo.jpg https://a/2", '"https://a/2"'),
        ("['https://a/1', 'https://a/2']", "no JSON list"),
        ('["https://a/1", 2]', "no JSON list"),
        ("[" * 100_000, "no JSON list"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_with_its_column(cell: str, told: str) -> None:
    quoted = cell.replace('"', '""')
    (problem,) = found(f'{HEADER}{ROW}S1,Chair,"{quoted}"\n').listed
    assert problem["loc"] == ["line", 3, "Input Image URLs"]
    assert told in problem["msg"]


# --- in: what is refused ------------------------------------------------------------------


def test_every_problem_is_told_with_its_line_and_column() -> None:
    body = f"{HEADER},Chair,https://a/1\nS2,Table\nS3,Lamp,https://a/1,red\n"
    problems = found(body)
    assert [entry["loc"] for entry in problems.listed] == [
        ["line", 2, "Serial Number"],
        ["line", 3, "Input Image URLs"],
        ["line", 4],
    ]
    assert problems.listed[0]["msg"] == "is empty; fill it in or remove the line"
    assert 'put " around' in problems.listed[2]["msg"]


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
    assert found(body).listed[0]["msg"].startswith("is not readable as UTF-8; save the file as")


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
        (f"{HEADER}{ROW}S2,{'x' * 200_000},https://a\n", [["line", 3, "Product Name"]]),
        (f"{HEADER}{ROW}S2,{'x' * (LONGEST_CELL + 1)},https://a\n", [["line", 3]]),
        (f"{HEADER}{ROW}S2,Ch\0air,https://a\n", [["line", 3]]),
        ((HEADER + ROW).encode() + b"S2,Caf\xe9,https://a\n", [["line", 3]]),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"S2,Caf\xe9,https://a\n", [["line", 2]]),
    ],
)
def test_an_unusable_file_names_the_place(text: str | bytes, expected: list[list[Any]]) -> None:
    assert locs(text) == expected


def test_an_unknown_column_is_answered_with_the_known_ones() -> None:
    msg = found(f"Price,{HEADER}{ROW}").listed[0]["msg"]
    assert f"Known: {', '.join((*REQUIRED, *RESULTS))}; also SKU, " in msg


@pytest.mark.parametrize(
    "header",
    [
        "id,title,image_link",
        "Product ID,Product Title,Pictures",
        "Sr. No.,Product-Name,Input-Image-Url",
        "Serial\u2011Number,Product\u2013Name,Input\u00a0Image\u00a0URL",
        "\u200bSKU,Name*,Image(s)",
        "'SKU',\u201cName\u201d,Image URL's",
        "IDs,Names,Photo",
    ],
)
def test_columns_have_synonyms_whatever_stands_between_their_words(header: str) -> None:
    (row,) = parse(f"{header}\n1,Chair,https://a/1\n".encode())
    assert row == Row(2, "1", "Chair", ("https://a/1",))


SHOPS = {
    "Handle,Title,Body (HTML),Image Src,Image Position\n": ["Handle", "Body (HTML)", "Image Src"],
    "ID,Type,SKU,Name,Published,Images\n": ["Serial Number", "Type", "Published"],
    "id,title,link,image_link,additional_image_link\n": ["link", "additional_image_link"],
}


@pytest.mark.parametrize("header", SHOPS)
def test_each_unknown_column_of_a_shop_is_named(header: str) -> None:
    named = [place[2] for place in locs(header + "1,2,3\n")]
    assert {*SHOPS[header]} <= {*named}
    assert not {*named} & {"Title", "title", "id", "SKU", "Name", "Images", "image_link"}


@pytest.mark.parametrize(
    ("header", "title"),
    [
        ("SKU,Serial Number,Name,Images", "Serial Number"),
        ("ID,SKU,Name,Images", "Serial Number"),
        ("SKU,Name,Product,Images", "Product Name"),
        ("SKU,Name,Images,image_link", "Input Image URLs"),
        ("SKU,Name,Image URL,Image URLs", "Input Image URLs"),
    ],
)
def test_two_columns_that_mean_the_same_are_named(header: str, title: str) -> None:
    (problem,) = found(f"{header}\n1,2,3,4\n").listed
    assert problem["loc"] == ["line", 1, title]
    twice = [name for name in header.split(",") if f'"{name}"' in problem["msg"]]
    assert len(twice) == 2


def test_problems_are_all_counted_and_not_all_listed() -> None:
    problems = found(HEADER + ",,x\n" * 500)
    assert (len(problems.listed), problems.count, problems.more) == (MOST, 1000, 1000 - MOST)
    assert len(str(found(f"{'x' * 10_000},{HEADER}").listed)) < 1000
    assert len(locs("x," * 500 + HEADER)) == MOST


def test_texts_are_as_bounded_as_in_json() -> None:
    rows = (
        f"1,{'n' * 501},http://a.bc/\n{'s' * 501},Lamp,http://a.bc/\n1,{'n' * 500},http://a.bc/\n"
    )
    assert locs(HEADER + rows) == [["line", 2, "Product Name"], ["line", 3, "Serial Number"]]


def test_more_rows_than_wanted_are_only_counted() -> None:
    read = upload_csv.parse((HEADER + ROW * 2 + ",,x\n").encode(), max_rows=2)
    assert ([row.line for row in read.rows], read.count) == ([2, 3], 3)
    assert read.problems.count == 0


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
    problems = upload_csv.parse(body, max_rows=100_000).problems
    assert len(problems.listed) == MOST
    assert 10_000 <= problems.count < 10_010
    assert time.process_time() - begin < 4


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: (HEADER + t).encode()))
def test_any_bytes_are_rows_or_have_something_found_in_them(body: bytes) -> None:
    read = upload_csv.parse(body, max_rows=3)
    if not read.problems.count:
        assert read.rows
        assert all(row.serial_number and row.product_name and row.urls for row in read.rows)


def test_urls_that_nobody_quoted_are_taken_together() -> None:
    body = b"Serial Number,Product Name,Input Image Urls\n1,A,http://a/1, https://b/2,http://c/3\n"
    assert parse(body, max_rows=9)[0].urls == ("http://a/1", "https://b/2", "http://c/3")


def test_a_separator_between_unquoted_urls_may_be_doubled_or_end_the_line() -> None:
    body = HEADER.encode() + b"1,A,http://a/1,, http://b/2, ,\n2,B,http://a/1,\n"
    assert [row.urls for row in parse(body)] == [("http://a/1", "http://b/2"), ("http://a/1",)]


def test_cells_too_many_that_are_no_urls_are_refused() -> None:
    body = b"Serial Number,Product Name,Input Image Urls\n1,A,http://a/1,red\n"
    assert locs(body) == [["line", 2]]
