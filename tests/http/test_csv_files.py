"""CSV files as they come out of spreadsheets and shops, posted over HTTP."""

from __future__ import annotations

import io
from typing import Any

from tests.support import Service

A, B, C = (f"http://127.0.0.1:9/{name}" for name in ("a.jpg", "High_Street,_London.jpg", "c.jpg"))
EXCEL = "Serial Number;Product Name;Input Image Urls\r\n"

FILES: dict[str, tuple[str | bytes, str]] = {
    "Excel in Germany": (f'\ufeff{EXCEL}1;Stuhl;"{A}; {B}"\r\n;;\r\n', "text/csv"),
    "Excel, CSV in the page of Windows": (
        f"{EXCEL}1;Stühle für 5 €;{A}\r\n".encode("cp1252"),
        "text/csv; charset=windows-1252",
    ),
    "Excel in Japan": (
        f"Serial Number,Product Name,Input Image Urls\r\n1,椅子,{A}\r\n".encode("cp932"),
        "text/csv; charset=Shift_JIS",
    ),
    "Excel, Unicode text": (
        f"Serial Number\tProduct Name\tInput Image Urls\r\n1\t椅子\t{A}\r\n".encode("utf-16"),
        "text/csv",
    ),
    "Excel with sep=": (f"sep=;\r\n{EXCEL}1;Chair;{A}|{B}|\r\n", "text/csv"),
    "two byte order marks": (f"\ufeff\ufeff{EXCEL}1;Chair;{A}\r\n", "text/csv"),
    "WooCommerce": (f'SKU,Name,Images\n1,Chair,"{A}, {B}, "\n', "text/csv"),
    "an extra bar at the end": (f'sku,title,image_urls\n1,Chair,"{A}|{B}|"\n', "text/csv"),
    "bars with blanks": (f'sku,title,image_urls\n1,Chair," {A} | {B} "\n', "text/csv"),
    "a line for each URL": (f'SKU,Name,Images\n1,Chair,"{A},\r\n{B},\r\n{C}\r\n"\n', "text/csv"),
    "nobody quoted": (f"S. No.,Product Name,Input Image Urls\n1,Chair,{A},,{C},\n", "text/csv"),
    "bars for commas": (f"Serial Number|Name|Image Link\n1|Chair|{A}\n", "text/csv"),
    "full-width": (f'SKU,Name,Images\n1,Chair,"{A}\uff0c{B}\u3001{C}\uff0c"\n', "text/csv"),
    "a feed for Google": (f"id,title,image_link\n1,Chair,{A}\n", "text/csv"),
    "Arabic commas": (f'SKU,Name,Images\n1,كرسي,"{A}\u060c {B}\u060c{C}"\n', "text/csv"),
    "a JSON list": (f'SKU,Name,Images\n1,Chair,"[""{A}"", ""{B}""]"\n', "text/csv"),
    "blank lines and no end": (f"\n\nSKU,Name,Images\n\n,,\n1,Chair,{A}", "text/csv"),
    "an old Mac": (
        f"SKU,Name,Images\r1,Café,{A}\r".encode("mac-roman"),
        "text/csv;charset=macintosh",
    ),
}


async def tried(service: Service, body: str | bytes, content_type: str) -> Any:
    status, answer = await service.post(
        "/api/upload?validate=true",
        data=body if isinstance(body, bytes) else body.encode(),
        headers={"Content-Type": content_type},
    )
    assert status == 200, answer
    return answer


async def test_each_file_is_taken_as_it_is_meant(service: Service) -> None:
    for name, (body, content_type) in FILES.items():
        answer = await tried(service, body, content_type)
        assert answer["valid"], (name, answer["problems"])
        text = body if isinstance(body, str) else body.decode("latin-1").replace("\0", "")
        images = sum(url in text for url in (A, B, C))
        assert (answer["products"], answer["images"]) == (1, images), name


async def test_the_urls_are_those_that_were_meant(service: Service) -> None:
    cells = (f"{A}, ", f"{A};", f"{A},, {B},", f"{A}|{B}", f"{A}\uff0c{B}", f"{A}\n{B}\n")
    lines = "".join(f'1,Chair,"{cell}"\n' for cell in cells)
    status, answer = await service.post(
        "/api/upload", data=f"SKU,Name,Images\n{lines}", headers={"Content-Type": "text/csv"}
    )
    assert status == 202, answer
    images = await service.images(answer["requestId"])
    assert [image["inputUrl"] for image in images] == [A, A, *[A, B] * 4]
    await service.finished(answer["requestId"])


UNCLEAR: list[tuple[str, list[Any], str]] = [
    (f'SKU,Name,Images\n1,A,"{A}, b.jpg"\n', ["line", 2, "Input Image URLs"], '"b.jpg"'),
    (f'SKU,Name,Images\n1,A,"{A}\nb.jpg"\n', ["line", 2, "Input Image URLs"], '"b.jpg"'),
    ('SKU,Name,Images\n1,A,", ;"\n', ["line", 2, "Input Image URLs"], "is empty"),
    (f"SKU,Name,Price,Images\n1,A,5,{A}\n", ["line", 1, "Price"], "Known: Serial Number, "),
    (f"SKU,Name,Handle,Images\n1,A,a,{A}\n", ["line", 1, "Handle"], "also SKU, ID, Product ID, "),
    (f'SKU,Name,Images\n1,A,"{A} and {C}"\n', ["line", 2, "Input Image URLs"], "separator"),
    (f'SKU,Name,Images\n1,A,"{A}<br>{C}"\n', ["line", 2, "Input Image URLs"], "separator"),
    (f'SKU,Name,Images\n1,A,"{A},ftp://b/c"\n', ["line", 2, "Input Image URLs"], '"ftp://b/c"'),
    (
        f"SKU,Serial,Name,Images\n1,1,A,{A}\n",
        ["line", 1, "Serial Number"],
        '"SKU" and "Serial"',
    ),
    (f"SKU,Name,Images\n1,{'x' * 2_200_000},{A}\n", ["line", 2], "2097152 characters"),
]


async def test_what_is_not_clear_is_refused_with_its_place_and_a_hint(service: Service) -> None:
    for text, loc, told in UNCLEAR:
        status, problem = await service.post(
            "/api/upload", data=io.BytesIO(text.encode()), headers={"Content-Type": "text/csv"}
        )
        assert (status, problem["code"]) == (422, "INVALID_CSV")
        assert problem["errors"][0]["loc"] == loc
        assert told in problem["errors"][0]["msg"]


async def test_a_url_that_is_none_is_refused_with_its_column(service: Service) -> None:
    status, problem = await service.post(
        "/api/upload",
        data=f'SKU,Name,Images\n1,A,"nonsense, {A}"\n',
        headers={"Content-Type": "text/csv"},
    )
    assert (status, problem["errors"][0]["loc"]) == (422, ["line", 2, "inputUrls", 0])
    assert problem["detail"].startswith("Line 2, column Input Image URLs, URL 1: ")
