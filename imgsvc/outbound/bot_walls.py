"""Tells a bot wall's answer from a broken image or a missing file; pure.

Walls answer with a page or a challenge, and with any of the statuses 200, 403, 429 and 503. They
are known by marks that their vendors document or that their pages hold. A page without a mark
counts as a wall only if its status refuses the request, or if it comes from a network that has such
walls. Any page is wrong where an image should be, but the page of a missing file or of an error
is to be reported as what it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

LOOKED_AT = 16 * 1024
"""Bytes of an answer that are enough to know a wall by."""

USUAL = frozenset({403, 429, 503})
"""Statuses of walls, beside that of a good answer."""

_GOOD = frozenset({200, 203})
_REFUSING = frozenset({403, 429})
_BUSY = frozenset({429, 503})

# Headers that are there only where a request was stopped.
_STOPPED = (
    "cf-mitigated",
    "x-amzn-waf-action",
    "x-vercel-mitigated",
    "sg-captcha",
    "x-sucuri-block",
)
# Headers of networks that can stop robots, whatever they did this time.
_NETWORKS = ("cf-ray", "x-iinfo", "x-datadome", "x-dd-b", "x-sucuri-id", "x-kpsdk-ct", "x-px-block")
_SERVERS = re.compile(
    "cloudflare|akamaighost|sucuri|ddos-guard|imperva|incapsula|datadome|perimeterx|qrator|stormwall",
    re.IGNORECASE,
)
_MARK = re.compile(
    rb"""_cf_chl_opt | error\ code:\ 10\d\d | captcha-delivery\.com | px-captcha | _pxappid | "jsclientsrc"
    | _incapsula_resource | incapsula\ incident\ id | awswafcookiedomainlist | gokuprops | kpsdk
    | sec-cpt | sucuri\ website\ firewall | distil_r_captcha
    | (verify|confirm)(ing)?\ (that\ )?you\ are\ (a\ )?human | not\ a\ robot | unusual\ traffic
    | checking\ (if\ the\ site\ connection\ is\ secure|your\ browser)
    | enable\ javascript\ and\ cookies\ to\ continue
    | <title[^>]*>[^<]{0,200}?(just\ a\ moment | attention\ required | access\ denied | captcha
        | access\ to\ this\ page\ has\ been\ denied | (human|bot)\ verification | security\ check
        | pardon\ our\ interruption | request\ (blocked|rejected) | ddos\ protection)""",
    re.IGNORECASE | re.VERBOSE,
)
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?(\s|<!--[^>]{0,1000}-->|<\?xml[^>]{0,200}\?>)*<(!doctype\s+html|html|head|body|title|meta|script)\b",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"(reference|incident id|ray id|support id)(?: id)?(?:<[^>]{0,100}>|[^0-9a-z<]){1,20}"
    r"([0-9a-z.-]{6,80})",
    re.IGNORECASE | re.ASCII,
)
_EVIDENCE = (
    "server",
    "cf-ray",
    "cf-mitigated",
    "x-amzn-waf-action",
    "x-amz-cf-id",
    "x-iinfo",
    "x-sucuri-id",
    "x-datadome",
    "akamai-grn",
    "x-vercel-mitigated",
    "x-vercel-id",
    "x-request-id",
)
_SHOWN = 4
_ODD = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class Wall:
    """An answer that keeps robots out.

    Attributes:
        evidence: by which the origin's operator may find the request.
        asks: it is meant for all requests, so that the origin is to be left alone for a while.
    """

    evidence: str
    asks: bool


def is_page(start: bytes) -> bool:
    """Whether a body that begins so is a web page, whatever its media type says."""
    return _PAGE.match(start, 0, LOOKED_AT) is not None


def find(status: int, headers: Mapping[str, str], start: bytes) -> Wall | None:
    """The wall that an answer is, if it is one.

    Args:
        status: of the answer.
        headers: of the answer; names are looked up in lower case.
        start: what its body begins with.
    """
    page = is_page(start)
    if status in _GOOD and not page:
        return None  # whatever it is called and whichever network it came through
    page = page or "html" in headers.get("content-type", "").lower()
    stopped = any(name in headers for name in _STOPPED)
    marked = (status in _GOOD or status in USUAL) and _MARK.search(start, 0, LOOKED_AT)
    network = any(name in headers for name in _NETWORKS) or _SERVERS.search(
        headers.get("server", "") + headers.get("x-cdn", "")
    )
    likely = status in _REFUSING or (network and (status in _GOOD or status in USUAL))
    if not stopped and not marked and not (page and likely):
        return None
    asks = stopped or marked or status in _BUSY or (network and status in _REFUSING)
    return Wall(_evidence(headers, start), bool(asks))


def _evidence(headers: Mapping[str, str], start: bytes) -> str:
    kind = headers.get("content-type", "").partition(";")[0].strip()
    shown = [kind or "no media type"]
    shown += [f"{name}: {headers[name]}" for name in _EVIDENCE if headers.get(name)][:_SHOWN]
    text = html.unescape(start[:LOOKED_AT].decode("latin-1"))
    if reference := _REFERENCE.search(text):
        shown.append(f"{reference[1].lower()}: {reference[2]}")
    return ", ".join(_ODD.sub("?", each)[:100] for each in shown)
