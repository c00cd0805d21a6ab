"""What is asked for is what was posted, or what a redirect named, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.outbound.guard import Guard
from imgsvc.outbound.urls import resolve
from imgsvc.runtime.settings import Net
from tests.raw import RawOrigin, whole
from tests.security.conftest import Open
from tests.support import Service

LOOPBACK = {"allow": ["127.0.0.0/8"]}
SIGNED = (
    "/bucket/my%20photo%28copy%29%7E.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
    "AKIA%2F20260101%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=900"
    "&X-Amz-SignedHeaders=host&response-content-disposition=inline%3B%20filename%3D%22a.jpg%22"
    "&X-Amz-Signature=0a1b2c"
)
AS_POSTED = [
    "/",
    "/a.jpg",
    "/%27%28%29%40%7E%2B%2C%3A%21%24%2A%3B%3D",
    "/a%2Fb%2fc%3Ad?x=%2F%2f%3A%26%3D%2B",
    "/%e6%97%a5/%E6%97%A5",
    "/a.jpg?",
    "/a.jpg??",
    "/?",
    "/a?b?c/d",
    "/a+b?q=a+b%20c",
    "/a;v=1,2/b;p?x=1;y=2",
    "/~user/(1)/'x'!$&*@:",
    '/a|b^c`d{e}f"g<h>i[j]',
    '/a?x=a|b^c`d{e}f"g<h>i[j]',
    "/100%.jpg?100%&x=%zz%4",
    "//a//b///c.jpg",
    "/a/./b/../c/..",
    "/../../a.jpg",
    "/.",
    "/a?x=/./../y",
    "/%2e%2e/%2E/a",
    "/unsafe/300x200/filters:format(webp):fill(%23fff)/https://example.com/a.jpg?b=1&c=%2f",
    "/rs:fit:300:200/plain/https%3A%2F%2Fexample.com%2Fa.jpg@webp",
    "/x?a=1&a=1&&=&b",
    "/x?%00%0d%0a",
    SIGNED,
]
ESCAPED = {
    "/a b.jpg": "/a%20b.jpg",
    "/a?q=a b&c=d  e": "/a?q=a%20b&c=d%20%20e",
    "/bücher/日本.jpg": "/b%C3%BCcher/%E6%97%A5%E6%9C%AC.jpg",
    "/bu\u0308cher": "/bu%CC%88cher",  # as it was written: not composed
    "/a?q=é€😀": "/a?q=%C3%A9%E2%82%AC%F0%9F%98%80",
    "/a\u3000b\u00a0c": "/a%E3%80%80b%C2%A0c",
    "/100% größe.jpg": "/100%%20gr%C3%B6%C3%9Fe.jpg",
    "/a b?": "/a%20b?",
    "?x=1": "/?x=1",
    "?": "/?",
    "": "/",
    "#fragment": "/",
    "/a?x=1#f?g/h": "/a?x=1",
    "/a?#f": "/a?",
    "/a#b c": "/a",
}
REFUSED = [
    "/a\tb",
    "/a\nb",
    "/a\r\nX: y",
    "/a\0b",
    "/a\x7f",
    "/a\x85b",
    "/a?x\x1b",
    "/a#\n",
    "/a\\b",
]


async def _keep(_: bytes) -> None:
    pass


@pytest.mark.parametrize(
    ("posted", "sent"), [*((target, target) for target in AS_POSTED), *ESCAPED.items()]
)
async def test_a_posted_address_is_asked_for_as_it_is(
    outbound: Open, posted: str, sent: str
) -> None:
    client = outbound(LOOPBACK)
    async with RawOrigin({"*": whole(b"picture")}) as origin:
        await client.download(origin.base + posted, _keep)
        assert (await client.post(origin.base + posted, b"{}", {}, 5)).status == 200
        # An origin that redirects names the whole of it.
        start = RawOrigin({"*": redirect((origin.base + posted).encode())})
        async with start:
            await client.download(f"{start.base}/start", _keep)
    assert origin.targets == [sent] * 3
    assert {head.split(b" ")[2].split(b"\r")[0] for head in origin.heads} == {b"HTTP/1.1"}


@pytest.mark.parametrize("target", REFUSED)
async def test_control_characters_are_refused_before_anything_is_sent(
    outbound: Open, target: str
) -> None:
    client = outbound(LOOPBACK)
    async with RawOrigin({"*": whole(b"picture")}) as origin:
        for asked in (
            client.download(origin.base + target, _keep),
            client.post(origin.base + target, b"", {}, 5),
        ):
            with pytest.raises(ServiceError, match="control characters") as refused:
                await asked
            assert refused.value.code is ErrorCode.URL_INVALID
    assert origin.heads == []


def redirect(location: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % location


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        *((target.encode(), target) for target in AS_POSTED if target.startswith("/a")
          and "/.." not in target and "/./" not in target),
        (b"/caf\xe9.jpg", "/caf%E9.jpg"),
        (b"/caf\xc3\xa9.jpg", "/caf%C3%A9.jpg"),
        (b"/\xe9\xc3\xa9\x96\x80?\xff=\xfe", "/%E9%C3%A9%96%80?%FF=%FE"),
        (b"/\x93\xfa\x96\x7b.jpg", "/%93%FA%96{.jpg"),  # Shift_JIS
        (b"/a b.jpg", "/a%20b.jpg"),
        (b"b.jpg", "/deep/b.jpg"),
        (b"b%2fc?d=%27#f", "/deep/b%2fc?d=%27"),
        (b"../x/./y/..", "/x/"),
        (b"?q=%7E", "/deep/start?q=%7E"),
        (b"?", "/deep/start?"),
        (b"b?", "/deep/b?"),
        (b"//HOST/a//b?%2F", "/a//b?%2F"),
        (b"//HOST?", "/?"),
        (b"http://HOST/a/../b/./c", "/a/../b/./c"),
        (b"HTTP://HOST", "/"),
    ],
)  # fmt: skip
async def test_a_redirect_is_followed_to_what_it_names(
    outbound: Open, location: bytes, sent: str
) -> None:
    answers: dict[str, bytes] = {"*": whole(b"picture")}
    async with RawOrigin(answers) as origin:
        host = origin.base.removeprefix("http://").encode()
        answers["/deep/start?x=%27"] = redirect(location.replace(b"HOST", host))
        await outbound(LOOPBACK).download(f"{origin.base}/deep/start?x=%27", _keep)
    assert origin.targets == ["/deep/start?x=%27", sent]


@pytest.mark.parametrize("location", [b"", b" \t"])
async def test_a_redirect_to_nowhere_is_not_followed(outbound: Open, location: bytes) -> None:
    """Not even to itself, as often as redirects are followed."""
    async with RawOrigin({"*": redirect(location)}) as origin:
        with pytest.raises(ServiceError, match="answered with status 302"):
            await outbound(LOOPBACK).download(f"{origin.base}/a", _keep)
    assert origin.targets == ["/a"]


# The examples of RFC 3986, sections 5.4.1 and 5.4.2, but for fragments, which are never sent.
BASE = "http://a/b/c/d;p?q"
EXAMPLES = {
    "g": "http://a/b/c/g",
    "./g": "http://a/b/c/g",
    "g/": "http://a/b/c/g/",
    "/g": "http://a/g",
    "//g": "http://g",
    "?y": "http://a/b/c/d;p?y",
    "g?y": "http://a/b/c/g?y",
    "#s": "http://a/b/c/d;p?q",
    "g;x": "http://a/b/c/g;x",
    ";x": "http://a/b/c/;x",
    "": "http://a/b/c/d;p?q",
    ".": "http://a/b/c/",
    "./": "http://a/b/c/",
    "..": "http://a/b/",
    "../g": "http://a/b/g",
    "../..": "http://a/",
    "../../g": "http://a/g",
    "../../../g": "http://a/g",
    "/./g": "http://a/g",
    "/../g": "http://a/g",
    "g.": "http://a/b/c/g.",
    ".g": "http://a/b/c/.g",
    "..g": "http://a/b/c/..g",
    "./../g": "http://a/b/g",
    "./g/.": "http://a/b/c/g/",
    "g/./h": "http://a/b/c/g/h",
    "g/../h": "http://a/b/c/h",
    "g;x=1/./y": "http://a/b/c/g;x=1/y",
    "g?y/./x": "http://a/b/c/g?y/./x",
    "g?y/../x": "http://a/b/c/g?y/../x",
    "g:h": "g:h",
    "//g//h": "http://g//h",
    "/g//h": "http://a/g//h",
}


@pytest.mark.parametrize("reference", EXAMPLES)
def test_references_are_resolved_as_the_rfc_does(reference: str) -> None:
    assert resolve(BASE, reference) == EXAMPLES[reference]


def test_the_host_is_judged_that_is_asked() -> None:
    """However it is written, and whatever follows it."""
    guard = Guard(Net())
    for text, host, sent in (
        ("HTTP://EXAMPLE.com:80?x=@127.0.0.1", "example.com", "/?x=@127.0.0.1"),
        ("https://bücher.example:443#@127.0.0.1", "xn--bcher-kva.example", "/"),
        (" http://example.com//127.0.0.1/ ", "example.com", "//127.0.0.1/"),
        ("http://example.com.:8080/http://127.0.0.1/", "example.com.", "/http://127.0.0.1/"),
    ):
        url = guard.parse(text)
        assert (url.raw_host, url.raw_path_qs) == (host, sent)
        # A default port is not told to the host: browsers do not, and so it is signed.
        assert url.host_port_subcomponent == host.rstrip(".") + (":8080" if "8080" in text else "")


@pytest.mark.parametrize(
    "text", ["http://a.example/x http://b.example/y", "http://a.example/, HTTPS://b"]
)
def test_several_addresses_are_not_one(text: str) -> None:
    with pytest.raises(ServiceError, match="more than one URL"):
        Guard(Net()).parse(text)


async def test_as_long_an_address_as_is_set_is_asked_for(outbound: Open) -> None:
    client, short = outbound(LOOPBACK), outbound({**LOOPBACK, "max_url_length": 300})
    async with RawOrigin({"*": whole(b"picture")}) as origin:
        url = f"{origin.base}/?token=".ljust(8192, "x")
        await client.download(url, _keep)
        assert (await client.post(url, b"{}", {}, 5)).status == 200
        async with RawOrigin({"*": redirect(url.encode())}) as start:
            await client.download(start.base, _keep)
            with pytest.raises(ServiceError, match="longer than 300") as far:
                await short.download(start.base, _keep)
        for asked in (client.download(f"{url}x", _keep), client.post(f"{url}x", b"", {}, 5)):
            with pytest.raises(ServiceError, match="longer than 8192") as refused:
                await asked
    assert refused.value.code is far.value.code is ErrorCode.URL_INVALID
    assert origin.targets == [url.removeprefix(origin.base)] * 3


async def test_an_upload_of_long_and_odd_addresses_comes_back_as_posted(
    start_service: Callable[..., Any],
) -> None:
    service: Service = await start_service()
    answers = {"*": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"}
    async with RawOrigin(answers) as origin:
        targets = [SIGNED, "/a?", "/a b/日.jpg", "/?x=".ljust(8192 - len(origin.base), "y")]
        hook = "/hook?".ljust(8192 - len(origin.base), "/")
        answers[hook] = whole(b"")
        urls = [origin.base + target for target in targets]
        request_id = await service.upload([urls], webhookUrl=origin.base + hook)
        status = await service.announced(request_id)
        assert status["webhook"] == {"status": "DELIVERED", "attempts": 1}
        images = await service.images(request_id)
        assert [image["inputUrl"] for image in images] == urls
        assert {image["error"]["code"] for image in images} == {"FETCH_STATUS"}
        sent = [SIGNED, "/a?", "/a%20b/%E6%97%A5.jpg", targets[3], hook]
        assert sorted(origin.targets) == sorted(sent)

        # As a query the webhook's is three times as long, since each slash is escaped.
        code, accepted = await service.post(
            "/api/upload",
            params={"webhookUrl": origin.base + hook},
            data=f"Serial Number,Product Name,Input Image Urls\n1,x,{urls[0]}\n".encode(),
            headers={"Content-Type": "text/csv"},
        )
        assert code == 202
        await service.announced(accepted["requestId"])
        assert origin.targets[-1] == hook


async def test_an_address_that_is_too_long_is_refused_by_its_place(service: Service) -> None:
    url = "http://127.0.0.1/".ljust(8193, "a")
    products = [{"serialNumber": "1", "productName": "x", "inputUrls": [url]}]
    status, problem = await service.post("/api/upload", json={"products": products})
    assert status == 422
    [error] = problem["errors"]
    assert error["loc"] == ["products", 0, "inputUrls", 0]
    assert "8192" in error["msg"]
