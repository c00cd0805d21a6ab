"""One cell of a CSV: a text, or the URLs of a product's images.

Whatever is written here is read back unchanged, so that a report can be posted again. Reading also
tolerates what people write: blanks around a text, and various separators between URLs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

# Comma, semicolon, bar, their full-width forms, the ideographic commas, and those of Arabic.
_SEPARATORS = ",;|\uff0c\uff1b\uff5c\u3001\uff64\u060c\u061b"
_BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"
# All that str.strip() removes, and the invisible characters that are copied from web pages.
_BLANKS = (
    _BREAKS
    + " \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
    + "\u200b\u2060\ufeff"
)
_BETWEEN = _SEPARATORS + _BLANKS

_URL = re.compile(r"https?://", re.IGNORECASE)
_BLANK = re.compile(f"[{_BLANKS}]")
_PLAIN = re.compile(f"https?://[^{_BETWEEN}]*", re.IGNORECASE)
# _MARK is a quick check that most URLs pass. _DOUBTFUL finds where a URL should begin but does not.
_MARK = re.compile(f"[{_SEPARATORS}{_BREAKS}]")
_DOUBTFUL = re.compile(
    f"[{_SEPARATORS}{_BREAKS}](?:(?<=[{_BREAKS}])|(?=[{_BLANKS}])|(?<=[{_BLANKS}].)"
    # Other kinds of addresses: ftp://..., //cdn..., www..., data:...
    r"|(?=(?:[a-z][a-z0-9+.-]*:)?//|www\.|data:))",
    re.IGNORECASE,
)
# A URL may contain another one after "/", "=" and the like. It may not after a letter, unless that
# ends an escape, nor after a character that no URL may contain: "...jpghttp://", "<br>http://".
_RUN_TOGETHER = re.compile(
    r"(?:(?<!%[0-9a-f])[a-z0-9]|[^!-~]|[\"<>\\^`{}])(?=https?://)", re.IGNORECASE
)

# What spreadsheets run as a formula (OWASP CSV Injection, ASVS 1.2.10), full-width forms included.
# Leading quotes belong to it: "'=1" must become "''=1", or else reading would turn it into "=1".
_FORMULA = re.compile("'*\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20\\t\\r\\n\\0]")
_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")


class AmbiguousError(ValueError):
    """A cell can be read in more than one way; the message says where, and what to do."""


def write_text(text: str) -> str:
    """A text as a cell: neutralised, or between two ``'`` if reading would strip blanks."""
    return f"'{text}'" if _is_padded(text) and not _FORMULA.match(text) else neutralise(text)


def neutralise(text: str) -> str:
    """The text, after a ``'`` if a spreadsheet would run it; numbers stay numbers."""
    risky = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return "'" + text if risky else text


def read_text(cell: str) -> str:
    """The text that :func:`write_text` wrote; any other text without the blanks around it."""
    if cell.startswith("'"):
        if _FORMULA.match(cell):
            return cell[1:]
        if cell.endswith("'") and _is_padded(cell[1:-1]):
            return cell[1:-1]
    return cell.strip()


def write_urls(urls: Sequence[str]) -> str:
    """URLs as a cell: separated by commas, or as a JSON list if that would be ambiguous."""
    cell = join(urls)
    return cell if _is_exact(cell, urls) else json.dumps([*urls], ensure_ascii=False)


def read_urls(cell: str) -> list[str]:
    """The URLs of a cell.

    A URL begins where ``http(s)://`` follows a separator or a blank. Separators and blanks between
    and around URLs are dropped; any other comma, semicolon or bar is part of a URL. A JSON list is
    taken as it is.

    Returns:
        Texts, which are not checked to be usable URLs.

    Raises:
        AmbiguousError: something other than a URL follows a line break, or a separator next to a
            blank; two URLs have no separator between them; or the cell begins like a JSON list but
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
        # The blank may belong to the URL, or separate it from words before the next: "U and U".
        if end < len(cell) and _BLANK.search(url) and not _MARK.search(cell, at + len(url), end):
            raise _run_together(cell[end:])
        urls.append(url)
    return urls if cell else []


def begins_as_url(text: str) -> bool:
    """Whether a text begins like a URL, ignoring blanks."""
    return bool(_URL.match(text.lstrip(_BLANKS)))


def join(values: Iterable[object]) -> str:
    """The values of a product's images as one cell; None leaves an empty place."""
    return ", ".join("" if value is None else str(value) for value in values)


def _is_exact(cell: str, urls: Sequence[str]) -> bool:
    # Nearly always true, and cheaper to check.
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
    """Whether there are blanks around a text, ignoring quotes."""
    inner = text.strip("'")
    return inner != inner.strip()


def _shown(text: str) -> str:
    return json.dumps(text.strip(_BETWEEN)[:40], ensure_ascii=False)
