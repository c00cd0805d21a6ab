"""Bodies, files and fields in the charset that they say they are in."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from tests.support import Origin, Service

HEADER = "Serial Number,Product Name,Input Image Urls\n"
NAMES = {
    "windows-1252": "Café, 5 €",
    "iso-8859-1": "Café",
    "windows-1251": "Стул",
    "shift_jis": "椅子",
    "iso-2022-jp": "椅子",
    "gb18030": "椅子",
    "utf-16": "椅子",
    "utf-8": "椅子",
}


def product(name: str, url: str) -> dict[str, Any]:
    return {"serialNumber": "1", "productName": name, "inputUrls": [url]}


async def names(service: Service, answered: tuple[int, Any]) -> list[str]:
    """What the products of an accepted upload are called."""
    status, answer = answered
    assert status == 202, answer
    await service.finished(answer["requestId"])
    return [image["productName"] for image in await service.images(answer["requestId"])]


async def test_a_declared_charset_is_read(service: Service, origin: Origin) -> None:
    url = origin.url("rocket.jpg")
    for charset, name in NAMES.items():
        csv = f'{HEADER}1,"{name}",{url}\n'.encode(charset)
        text = json.dumps({"products": [product(name, url)]}, ensure_ascii=False)
        form = aiohttp.FormData()
        form.add_field("file", csv, filename="a.csv", content_type=f"text/csv; charset={charset}")
        sent: list[dict[str, Any]] = [
            {"data": csv, "headers": {"Content-Type": f"text/csv; charset={charset}"}},
            {"data": csv, "headers": {"Content-Type": f'text/csv;header=x;CHARSET="{charset}"'}},
            {
                "data": text.encode(charset),
                "headers": {"Content-Type": f"application/json; charset={charset.upper()}"},
            },
            {"data": form},
        ]
        for request in sent:
            answered = await service.post("/api/upload", **request)
            assert await names(service, answered) == [name], request


async def test_another_charset_is_refused_with_what_is_known(service: Service) -> None:
    for content_type in ("text/csv", "application/json"):
        for charset in ("utf-7", "utf-32", "iso-2022-kr", "rot13", "nonsense"):
            status, problem = await service.post(
                "/api/upload",
                data=b"+AGE-",
                headers={"Content-Type": f"{content_type}; charset={charset}"},
            )
            assert (status, problem["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
            assert f"'{charset}'" in problem["detail"]
            assert "utf-8, utf-16" in problem["detail"]


async def test_a_part_in_an_unknown_charset_is_refused(service: Service) -> None:
    for name in ("file", "options"):
        form = aiohttp.FormData()
        form.add_field(name, b"{}", filename="a", content_type="text/plain; charset=utf-7")
        status, problem = await service.post("/api/upload", data=form)
        assert (status, problem["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_what_is_not_in_its_charset_is_refused_with_its_line(service: Service) -> None:
    csv = HEADER + "1,Café\xff,u"
    for content_type, charset, body, expected in (
        ("text/csv", "us-ascii", csv, (422, "INVALID_CSV")),
        ("text/csv", "shift_jis", csv, (422, "INVALID_CSV")),
        ("application/json", "us-ascii", '\n"é"', (400, "INVALID_JSON")),
    ):
        for query in ("", "?validate=true"):
            status, problem = await service.post(
                f"/api/upload{query}",
                data=body.encode("latin-1"),
                headers={"Content-Type": f"{content_type}; charset={charset}"},
            )
            assert (status, problem["code"]) == expected
            assert f"Line 2: is not readable as {charset}" in problem["detail"]
            assert problem["errors"][0]["loc"] == ["line", 2]


async def test_json_that_says_nothing_and_is_not_utf_8_is_told_so(service: Service) -> None:
    body = json.dumps({"products": [product("Café", "https://a.bc/")]}, ensure_ascii=False)
    status, problem = await service.post(
        "/api/upload", data=body.encode("cp1252"), headers={"Content-Type": "application/json"}
    )
    assert (status, problem["code"]) == (400, "INVALID_JSON")
    assert "is not UTF-8" in problem["detail"]
    assert "name the charset in the Content-Type" in problem["detail"]


async def test_a_byte_order_mark_says_what_it_is(service: Service, origin: Origin) -> None:
    url = origin.url("rocket.jpg")
    texts = {
        "text/csv": f"{HEADER}1,Café,{url}\n",
        "application/json": json.dumps({"products": [product("Café", url)]}, ensure_ascii=False),
    }
    for encoding in ("utf-8-sig", "utf-16"):
        for parameters in ("", "; charset=utf-8", "; charset=windows-1252"):
            for content_type, text in texts.items():
                answered = await service.post(
                    "/api/upload",
                    data=text.encode(encoding),
                    headers={"Content-Type": content_type + parameters},
                )
                assert await names(service, answered) == ["Café"]


async def test_small_bodies_are_read_in_their_charset_too(service: Service) -> None:
    for charset, status in (("utf-16", 200), ("utf-8-sig", 200), ("utf-7", 415)):
        answered, answer = await service.post(
            "/api/webhooks/test",
            data='{"url":"http://127.0.0.1:9/"}'.encode(charset),
            headers={"Content-Type": f"application/json; charset={charset.removesuffix('-sig')}"},
        )
        assert answered == status, answer


def form_of(*parts: tuple[str, str, bytes]) -> dict[str, Any]:
    """A form to the byte: names, further headers and contents."""
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, more, content in parts
    )
    return {
        "data": body + b"--b--\r\n",
        "headers": {"Content-Type": "multipart/form-data; boundary=b"},
    }


async def test_the_field_charset_holds_for_plain_fields_and_not_for_files(
    service: Service, origin: Origin
) -> None:
    """RFC 7578 section 4.6: what a browser sends from a page that is not in UTF-8."""
    csv = f"{HEADER}1,Café,{origin.url('rocket.jpg')}\n"
    options = '{"format":"png"}'.encode("utf-16-le")
    as_file = '; filename="a.csv"\r\nContent-Type: text/csv'
    form = form_of(
        ("_charset_", "", b"utf-16le"), ("options", "", options), ("file", as_file, csv.encode())
    )
    assert await names(service, await service.post("/api/upload", **form)) == ["Café"]
    plain = form_of(("_charset_", "", b"windows-1252"), ("file", "", csv.encode("cp1252")))
    assert await names(service, await service.post("/api/upload", **plain)) == ["Café"]


async def test_a_field_charset_that_is_none(service: Service, origin: Origin) -> None:
    csv = f"{HEADER}1,A,{origin.url('rocket.jpg')}\n".encode()
    for charset, status in ((b"utf-7", 415), (b"x" * 100, 400), (b"\xff", 400)):
        form = form_of(("_charset_", "", charset), ("file", "", csv))
        assert (await service.post("/api/upload", **form))[0] == status
    form = form_of(("_charset_", "", b""), ("file", "", csv))
    assert await names(service, await service.post("/api/upload", **form)) == ["A"]
    form = form_of(("_charset_", "", b"utf-8"))
    status, problem = await service.post("/api/upload", **form)
    assert status == 422, problem


async def test_an_empty_field_is_as_left_out(service: Service, origin: Origin) -> None:
    csv = f"{HEADER}1,A,{origin.url('rocket.jpg')}\n"
    fields = ("webhookUrl", "webhook", "options", "expiresInDays")
    for empty in ("", " ", "\r\n"):
        form = aiohttp.FormData()
        for name in fields:
            form.add_field(name, empty)
        form.add_field("file", csv, filename="a.csv")
        assert await names(service, await service.post("/api/upload", data=form)) == ["A"]
    answered = await service.post(
        "/api/upload?" + "&".join(f"{name}=" for name in (*fields, "validate")),
        data=csv,
        headers={"Content-Type": "text/csv"},
    )
    assert await names(service, answered) == ["A"]


async def test_an_empty_parameter_is_as_left_out_and_an_unknown_one_refused(
    service: Service,
) -> None:
    path = "/api/requests?status=&createdAfter=&createdBefore=&limit=&cursor="
    assert await service.get(path) == (200, {"requests": [], "nextCursor": None})
    status, problem = await service.get("/api/requests?state=")
    assert (status, problem["errors"][0]["loc"]) == (422, ["state"])


async def test_a_charset_that_makes_a_body_too_large_is_refused(start_service: Any) -> None:
    service = await start_service(http={"body_limit_bytes": 200_000})
    status, problem = await service.post(
        "/api/upload",
        data="€".encode("cp1252") * 100_000,
        headers={"Content-Type": "text/csv; charset=windows-1252"},
    )
    assert (status, problem["code"]) == (413, "BODY_TOO_LARGE")
