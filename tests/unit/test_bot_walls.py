"""What keeps robots out is told from what is missing, broken, or an image after all."""

from __future__ import annotations

import time

import pytest
from multidict import CIMultiDict

from imgsvc.outbound.bot_walls import Wall, find
from tests.photos import photo

HTML = {"Content-Type": "text/html; charset=UTF-8"}
CLOUDFLARE = {**HTML, "Server": "cloudflare", "CF-RAY": "8f1c2d3e4a5b6c7d-FRA"}
PAGE = b"<!DOCTYPE html><html><head><title>%b</title></head><body><h1>%b</h1></body></html>"


def page(title: bytes, body: bytes = b"") -> bytes:
    return PAGE % (title, body)


def look(status: int, headers: dict[str, str], start: bytes) -> Wall | None:
    return find(status, CIMultiDict(headers), start)


CHALLENGES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "Cloudflare, managed": (403, {**CLOUDFLARE, "cf-mitigated": "challenge"}, page(b"Just a moment...")),
    "Cloudflare, without headers": (503, HTML, page(b"Just a moment...", b"<script>window._cf_chl_opt={}</script>")),
    "Cloudflare, blocked": (403, CLOUDFLARE, page(b"Attention Required! | Cloudflare")),
    "Cloudflare, as text": (403, {"Content-Type": "text/plain", "Server": "cloudflare"}, b"error code: 1010"),
    "Cloudflare, too many": (429, {"Content-Type": "text/plain", "Server": "cloudflare"}, b"error code: 1015"),
    "Akamai": (
        403,
        {**HTML, "Server": "AkamaiGHost"},
        (b"<HTML><HEAD>\n<TITLE>Access Denied</TITLE>\n</HEAD><BODY>You don't have permission to access this. "
        b"Reference&#32;&#35;18&#46;5cb2c817&#46;1764000000&#46;1a2b3c4d</BODY></HTML>"),
    ),
    "DataDome": (
        403,
        {"Content-Type": "application/json", "x-datadome": "protected"},
        b'{"url":"https://geo.captcha-delivery.com/captcha/?initialCid=x"}',
    ),
    "DataDome, page": (403, {**HTML, "X-DataDome": "protected"}, page(b"example.com")),
    "PerimeterX": (403, HTML, page(b"Access to this page has been denied", b'<div id="px-captcha">')),
    "PerimeterX, JSON": (403, {"Content-Type": "application/json"}, b'{"appId":"PX1","jsClientSrc":"/1/init.js","blockScript":"/1/captcha.js"}'),
    "Imperva, with 200": (
        200,
        {**HTML, "X-Iinfo": "9-1-0 0NNN RT(1 2) q(0 -1 -1 0)", "X-CDN": "Imperva"},
        (b'<html><head><META NAME="ROBOTS"></head><body><iframe src="/_Incapsula_Resource?x"></iframe>'
        b"Request unsuccessful. Incapsula incident ID: 9000-123456789</body></html>"),
    ),
    "AWS WAF, challenge": (202, {"x-amzn-waf-action": "challenge"}, b""),
    "AWS WAF, captcha": (405, {**HTML, "x-amzn-waf-action": "captcha"}, page(b"Human Verification")),
    "Vercel": (429, {**HTML, "x-vercel-mitigated": "challenge"}, page(b"Vercel Security Checkpoint")),
    "SiteGround": (202, {**HTML, "SG-Captcha": "challenge"}, b"<html><head><link rel='icon'></head></html>"),
    "Sucuri": (403, {**HTML, "Server": "Sucuri/Cloudproxy", "X-Sucuri-ID": "14005"}, page(b"Sucuri WebSite Firewall - Access Denied")),
    "Kasada": (429, {**HTML, "x-kpsdk-ct": "x"}, b"<!DOCTYPE html><html><head></head><body><script>window.KPSDK={}</script></body></html>"),
    "DDoS-Guard": (403, {**HTML, "Server": "ddos-guard"}, page(b"DDOS-GUARD")),
    "Distil": (200, HTML, page(b"Pardon Our Interruption")),
    "by its own words": (200, HTML, page(b"shop", b"Please verify you are a human to go on.")),
    "by its own words, in 503": (503, HTML, page(b"Checking your browser before you access shop.example")),
    "with a byte order mark": (200, HTML, b"\xef\xbb\xbf  <!-- x -->\n" + page(b"CAPTCHA")),
    "with an XML declaration": (200, HTML, b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0">' + page(b"Just a moment...")[15:]),
    "F5": (200, HTML, page(b"Request Rejected", b"Your support ID is: 1234567890")),
    "called an image": (200, {"Content-Type": "image/jpeg"}, page(b"Just a moment...")),
}  # fmt: skip


@pytest.mark.parametrize("name", CHALLENGES)
def test_a_wall_is_known_and_asks_for_rest(name: str) -> None:
    wall = look(*CHALLENGES[name])
    assert wall is not None
    assert wall.asks


@pytest.mark.parametrize("status", [200, 203, 403, 429, 503])
def test_a_page_from_a_network_with_walls_is_one(status: int) -> None:
    wall = look(status, CLOUDFLARE, page(b"Something"))
    assert wall is not None
    assert wall.evidence == "text/html, server: cloudflare, cf-ray: 8f1c2d3e4a5b6c7d-FRA"
    # A page by 200 may be what is there instead of this one file.
    assert wall.asks == (status not in (200, 203))


def test_a_page_that_refuses_without_marks_is_one_for_its_file() -> None:
    wall = look(403, {**HTML, "Server": "nginx"}, page(b"403 Forbidden"))
    assert wall == Wall("text/html, server: nginx", asks=False)
    assert look(429, HTML, page(b"Too many")) == Wall("text/html", asks=True)


NONE = {
    "a missing file": (404, CLOUDFLARE, page(b"Not found, no captcha here")),
    "an origin that is away": (502, CLOUDFLARE, page(b"502 Bad Gateway")),
    "an origin that is busy": (503, {**HTML, "Server": "nginx"}, page(b"503 Service Temporarily Unavailable")),
    "a login": (200, {**HTML, "Server": "nginx"}, page(b"Sign in")),
    "S3": (
        403,
        {"Content-Type": "application/xml", "Server": "AmazonS3", "x-amz-request-id": "x"},
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>',
    ),
    "S3 behind Cloudflare": (
        403,
        {"Content-Type": "application/xml", "Server": "cloudflare", "CF-RAY": "x"},
        b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code></Error>",
    ),
    "JSON that refuses": (403, {"Content-Type": "application/json"}, b'{"error":"forbidden"}'),
    "text that refuses": (429, {"Content-Type": "text/plain"}, b"slow down"),
    "nothing that refuses": (403, {}, b""),
    "an image through Cloudflare": (200, {"Server": "cloudflare", "CF-RAY": "x"}, photo("coffee.png")[:9000]),
    "an image called a page": (200, CLOUDFLARE, photo("coffee.png")[:9000]),
    "an image although it was stopped": (200, {**CLOUDFLARE, "cf-mitigated": "challenge"}, photo("coffee.png")[:9000]),
    "SVG": (200, CLOUDFLARE, b'<svg xmlns="http://www.w3.org/2000/svg"><title>captcha</title></svg>'),
    "nothing": (200, CLOUDFLARE, b""),
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_wall_is_not_called_one(name: str) -> None:
    assert look(*NONE[name]) is None


def test_evidence_is_short_and_of_one_line() -> None:
    headers = {**CLOUDFLARE, "Server": "cloudflare\x1b[31m\u202e" + "x" * 500, "CF-RAY": "\x85é"}
    wall = look(
        403, headers, page(b"x", b"Reference ID: 0.5cb2c817.1764000000.1a2b3c4d" + b"x" * 500)
    )
    assert wall
    assert wall.evidence.isascii()
    assert wall.evidence.isprintable()
    assert len(wall.evidence) < 500
    assert "reference: " in wall.evidence


def test_the_reference_on_an_akamai_page_is_told() -> None:
    wall = look(*CHALLENGES["Akamai"])
    assert wall
    assert wall.evidence.endswith("reference: 18.5cb2c817.1764000000.1a2b3c4d")


@pytest.mark.parametrize("start", [b"<" * 16_384, b"<!--" * 4096, b"<!-- " + b"-" * 16_000, b" " * 16_384, b"<title>" * 2000, b"verify" * 3000])  # fmt: skip
def test_no_page_makes_looking_slow(start: bytes) -> None:
    started = time.process_time()
    for _ in range(5):
        look(403, HTML, start)
        look(200, HTML, b"<html>" + start)
    assert time.process_time() - started < 0.5
