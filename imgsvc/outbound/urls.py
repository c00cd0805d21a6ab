"""URLs as text: how one is escaped before it is sent, and where a redirect's ``Location`` leads.

Origins sign URLs, so each is sent as it came: no escape is made or undone, and no dot segment of
a complete URL is removed. Only blanks and characters beyond ASCII cannot be sent as they are. They
are escaped, as browsers and curl do.
"""

from __future__ import annotations

import re
from urllib.parse import quote

_NOT_SENT = re.compile(r"[^!-~]+")
_RAW_BYTE = re.compile("[\udc80-\udcff]")  # how the HTTP parser hands on what is not UTF-8
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def target(rest: str) -> str:
    """The target of a request to a host (RFC 9112, section 3.2.1: the origin form).

    Args:
        rest: what follows the authority in a URL, without control characters.
    """
    sent = _NOT_SENT.sub(lambda found: quote(found[0], safe=""), rest.partition("#")[0])
    return sent if sent.startswith("/") else f"/{sent}"


def resolve(base: str, reference: str) -> str:
    """The URL that a reference means, as RFC 3986 resolves it (section 5.2).

    A reference that names its host stays as it is. Dot segments of others are removed.

    Args:
        base: the URL that was answered with the reference, with a path.
        reference: the header's value; bytes that are not UTF-8 are escaped.
    """
    reference = _RAW_BYTE.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", reference)
    if _SCHEME.match(reference):
        return reference
    scheme, _, rest = base.partition("://")
    if reference.startswith("//"):
        return f"{scheme}:{reference}"
    host, _, asked = rest.partition("/")
    path, mark, query = f"/{asked}".partition("?")
    named, named_mark, named_query = reference.partition("#")[0].partition("?")
    if named:
        folder = "" if named.startswith("/") else path[: path.rindex("/") + 1]
        path = _without_dots(folder + named)
    if named or named_mark:
        mark, query = named_mark, named_query
    return f"{scheme}://{host}{path}{mark}{query}"


def _without_dots(path: str) -> str:
    """A path that begins with a slash, without its segments . and .. (section 5.2.4)."""
    kept: list[str] = []
    *folders, last = path.split("/")[1:]
    for segment in folders:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if last == "..":
        del kept[-1:]
    kept.append("" if last in (".", "..") else last)
    return "/" + "/".join(kept)
