"""What stands in one cell of a CSV: a text, or the URLs of a product's images.

Whatever is written here is read back as it was, so that a report can be posted again. What people
write is read with more indulgence: blanks around a text, and any separator between URLs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

# Comma, semicolon, bar, their full-width forms, the ideographic commas, and those of Arabic.
_SEPARATORS = ",;|\uff0c\uff1b\uff5c\u3001\uff64\u060c\u061b"
_BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"
# All that str.strip() takes for blank, and what comes along from web pages and nobody sees.
_BLANKS = (
    _BREAKS
    + " \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
    + "\u200b\u2060\ufeff"
)
_BETWEEN = _SEPARATORS + _BLANKS

_URL = re.compile(r"https?://", re.IGNORECASE)
_BLANK = re.compile(f"[{_BLANKS}]")
_PLAIN = re.compile(f"https?://[^{_BETWEEN}]*", re.IGNORECASE)
# Here the next URL should begin, and does not. Most URLs have no mark, which is quicker to tell.
_MARK = re.compile(f"[{_SEPARATORS}{_BREAKS}]")
_DOUBTFUL = re.compile(
    f"[{_SEPARATORS}{_BREAKS}](?:(?<=[{_BREAKS}])|(?=[{_BLANKS}])|(?<=[{_BLANKS}].)"
    # Addresses that are written otherwise: ftp://..., //cdn..., www..., data:...
    r"|(?=(?:[a-z][a-z0-9+.-]*:)?//|www\.|data:))",
    re.IGNORECASE,
)
# A URL may hold another behind "/", "=" and the like, but not behind a letter, unless that ends an
# escape, nor behind what no URL may hold: "...jpghttp://", "<br>http://".
_RUN_TOGETHER = re.compile(
    r"(?:(?<!%[0-9a-f])[a-z0-9]|[^!-~]|[\"<>\\^`{}])(?=https?://)", re.IGNORECASE
)

# What spreadsheets run as a formula (OWASP CSV Injection, ASVS 1.2.10), full-width forms too.
# Quotes in front are part of it: "'=1" must become "''=1", else reading would make it "=1".
_FORMULA = re.compile("'*\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20\\t\\r\\n\\0]")
_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")


class AmbiguousError(ValueError):
    """A cell can be read in more than one way; the text says where, and what to do."""


def write_text(text: str) -> str:
    """A text as a cell: neutralised, or between two ``'`` if reading would cut blanks off."""
    return f"'{text}'" if _is_padded(text) and not _FORMULA.match(text) else neutralise(text)


def neutralise(text: str) -> str:
    """The text with a ``'`` in front if a spreadsheet would run it; numbers stay numbers."""
    risky = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return "'" + text if risky else text


def read_text(cell: str) -> str:
    """What :func:`write_text` was given; else the text without the blanks around it."""
    if cell.startswith("'"):
        if _FORMULA.match(cell):
            return cell[1:]
        if cell.endswith("'") and _is_padded(cell[1:-1]):
            return cell[1:-1]
    return cell.strip()


def write_urls(urls: Sequence[str]) -> str:
    """URLs as a cell: between commas, or as a JSON list if these could be read in another way."""
    cell = join(urls)
    return cell if _is_exact(cell, urls) else json.dumps([*urls], ensure_ascii=False)


def read_urls(cell: str) -> list[str]:
    """The URLs of a cell.

    A URL begins where ``http(s)://`` follows a separator or a blank. Separators and blanks between
    URLs and around them all are dropped; other commas, semicolons and bars are part of a URL. A
    JSON list is taken as it is.

    Returns:
        Texts; whether each is a usable URL is for others to judge.

    Raises:
        AmbiguousError: something else follows a line break, or a separator that has a blank beside
            it; two URLs have something between them that separates none; or what begins as a list
            is none.
    """
    cell = cell.strip(_BETWEEN)
    if cell.startswith("["):
        return _listed(cell)
    begins = [found.start() for found in _URL.finditer(cell)]
    begins = [at for at in begins if at and cell[at - 1] in _BETWEEN]
    urls = []
    for at, end in pairwise([0, *begins, len(cell)]):
        url = cell[at:end].rstrip(_BETWEEN)
        _check(url)
        # The blank may be part of it, or part it from the words before the next: "U and U".
        if end < len(cell) and _BLANK.search(url) and not _MARK.search(cell, at + len(url), end):
            raise _run_together(cell[end:])
        urls.append(url)
    return urls if cell else []


def begins_as_url(text: str) -> bool:
    """Whether a text begins as URLs do, blanks left aside."""
    return bool(_URL.match(text.lstrip(_BLANKS)))


def join(values: Iterable[object]) -> str:
    """The values of a product's images in one cell, an empty place for None."""
    return ", ".join("" if value is None else str(value) for value in values)


def _is_exact(cell: str, urls: Sequence[str]) -> bool:
    # Nearly always, and quicker to tell.
    if all(_PLAIN.fullmatch(url) and url.count("://") == 1 for url in urls):
        return True
    try:
        return read_urls(cell) == [*urls]
    except AmbiguousError:
        return False


def _check(url: str) -> None:
    """Refuse what may be more than one URL."""
    if _MARK.search(url) and (doubt := _DOUBTFUL.search(url)):
        raise AmbiguousError(
            f"has {_shown(url[doubt.end() :])} after a separator; begin each URL with http:// "
            "or https://, and write a comma or blank that belongs to one as %2C or %20"
        )
    if url.count("://") > 1 and (doubt := _RUN_TOGETHER.search(url)):
        raise _run_together(url[doubt.end() :])


def _run_together(rest: str) -> AmbiguousError:
    return AmbiguousError(
        f"has {_shown(rest)} without a separator before it; put a comma between URLs, and write a "
        "blank that belongs to one as %20"
    )


def _listed(cell: str) -> list[str]:
    try:
        urls = json.loads(cell)
    except (ValueError, RecursionError):
        urls = None
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise AmbiguousError(
            'begins with [ and is no JSON list of texts; separate URLs by commas, or write ["…", '
            '"…"]'
        )
    return urls


def _is_padded(text: str) -> bool:
    """Whether there are blanks around it, quotes left aside."""
    inner = text.strip("'")
    return inner != inner.strip()


def _shown(text: str) -> str:
    return json.dumps(text.strip(_BETWEEN)[:40], ensure_ascii=False)
