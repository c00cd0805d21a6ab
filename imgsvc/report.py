"""CSV in and out: products as clients post them, results as they download them.

The format is RFC 4180. Whatever :func:`line` writes, :func:`parse` reads back, so a report can
be posted again. Both are plain functions on values; streaming is done by whoever calls
:func:`line` row by row.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from imgsvc.findings import Findings
from imgsvc.model import LONGEST_TEXT, ImageStatus

Columns = Literal["basic", "full", "failed"]
"""Which report: the four contract columns, all columns, or what failed, to be posted again."""

_SERIAL, _NAME, _INPUTS = "Serial Number", "Product Name", "Input Image URLs"
_REQUIRED = (_SERIAL, _NAME, _INPUTS)

_PER_IMAGE: dict[str, Callable[[Any], object]] = {
    _INPUTS: attrgetter("input_url"),
    "Output Image URLs": attrgetter("output_url"),
    "Status": attrgetter("status"),
    "Error Codes": attrgetter("error_code"),
    # A ", " inside a detail would shift those after it.
    "Error Details": lambda image: (image.error_detail or "").replace(", ", "; "),
    "Bytes In": attrgetter("bytes_in"),
    "Bytes Out": attrgetter("bytes_out"),
    "Formats": attrgetter("format"),
    "Widths": attrgetter("width"),
    "Heights": attrgetter("height"),
    "Notes": attrgetter("note"),
}
"""Column title -> what it shows of each image; the order is that of the full report."""

_IMAGE_TITLES: dict[Columns, tuple[str, ...]] = {
    "basic": (_INPUTS, "Output Image URLs"),
    "full": tuple(_PER_IMAGE),
    "failed": (_INPUTS, "Error Codes"),
}

# A URL begins where "http(s)://" follows a separator. Both sides have zero width, so the split
# takes linear time however long a run of blanks an attacker sends.
_URL = re.compile(r"https?://", re.IGNORECASE)
_NEXT_URL = re.compile(r"(?<=[,;\s])(?=https?://)", re.IGNORECASE)

# The header record with the blank lines before it, whose quoted cells may span lines. Possessive,
# so that a quote that is never closed costs one pass.
_HEAD = re.compile(r'\s*+(?:[^"\r\n]++|"[^"]*+")*+')
_QUOTED = re.compile(r'"[^"]*"')

# NUL, and what decoding makes of bytes that are no text.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

# What spreadsheets run as a formula (OWASP CSV Injection, ASVS 1.2.10), full-width forms too.
# Quotes in front are part of it: "'=1" must become "''=1", else reading would make it "=1".
_FORMULA = re.compile("'*\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20\\t\\r\\n\\0]")
_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Row:
    """One product as posted; what it lacks is empty, and among the findings.

    Attributes:
        line: where it begins in the file, counted from 1.
        serial_number: what identifies it.
        product_name: what it is called.
        urls: texts; whether each is a usable URL is for others to judge.
    """

    line: int
    serial_number: str
    product_name: str
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The products of a file.

    Attributes:
        rows: those that were looked at; without those that cannot be told into their columns.
        count: how many there are, unless so much is wrong that reading ended early.
    """

    rows: Sequence[Row]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportImage:
    """One image of a report; what is None leaves an empty place in its column."""

    input_url: str
    status: ImageStatus
    output_url: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One product of a report, its images in the order in which they were posted."""

    serial_number: str
    product_name: str
    images: Sequence[ReportImage]


def parse(body: bytes, findings: Findings, *, max_rows: int) -> Sheet:
    r"""The products of a CSV file; usable only if nothing was found wrong.

    Columns may come in any order, case and spacing (``Input Image Urls``, ``input_image_urls``,
    ``inputImageUrls``), the other columns of our own reports are ignored, and the separator
    (``,``, ``;`` or tab) is the one the first line uses, be it the header or Excel's ``sep=;``.
    UTF-8 with or without BOM, UTF-16 with BOM. Lines without content are skipped. In the URL cell
    a comma, semicolon or blank separates only where ``http://`` or ``https://`` follows, so URLs
    may contain them.

    Args:
        body: the file, already bounded in size.
        findings: gets every problem, with its line and, where known, its column.
        max_rows: how many rows are looked at and kept; more are only counted.
    """
    records = _records(_decode(body, findings), findings)
    header_line, names = next(records, (1, []))
    where = _locate(header_line, names, findings)
    rows: list[Row] = []
    count = 0
    if not where.keys() >= {*_REQUIRED}:
        return Sheet(rows, count)
    for line_no, found in records:
        if findings.enough:
            break
        count += 1
        if count > max_rows:
            continue
        cells = _take_together(found, len(names), where)
        if len(cells) > len(names):
            findings.add(
                _place(line_no),
                f"has {len(cells)} cells under {len(names)} columns; "
                'put " around a cell that contains the separator',
            )
            continue
        row = _row(line_no, cells, where)
        for title, value in zip(
            _REQUIRED, (row.serial_number, row.product_name, row.urls), strict=True
        ):
            if not value:
                findings.add(_place(line_no, title), "is empty; fill it in or remove the line")
            elif isinstance(value, str) and len(value) > LONGEST_TEXT:
                msg = f"has {len(value)} characters; {LONGEST_TEXT} are the most"
                findings.add(_place(line_no, title), msg)
        rows.append(row)
    if not count and not findings.count:
        findings.add(_place(header_line), "is the last one; add a line per product")
    return Sheet(rows, count)


def header(columns: Columns = "basic") -> bytes:
    """The first line of a report, with its line end, in UTF-8."""
    return _encode((_SERIAL, _NAME, *_IMAGE_TITLES[columns]), csv.QUOTE_MINIMAL)


def line(row: ReportRow, columns: Columns = "basic") -> bytes:
    """One product as a line of a report, with its line end, in UTF-8.

    Within a cell the images are joined with ``, ``; what an image does not have leaves an empty
    place and never moves its neighbours: ``u1, , u3``. Cells that a spreadsheet would run as a
    formula get a leading ``'``, which :func:`parse` takes away again.

    Returns:
        The line; for ``failed`` only the failed images, and nothing at all if there are none.
    """
    images = row.images
    if columns == "failed":
        images = [image for image in images if image.status is ImageStatus.FAILED]
        if not images:
            return b""
    cells = [row.serial_number, row.product_name]
    cells += [
        _join(_PER_IMAGE[title](image) for image in images) for title in _IMAGE_TITLES[columns]
    ]
    # Everything is quoted since LibreOffice by default also splits unquoted cells at ";" and
    # tabs, and would so dig a formula out of the middle of a name.
    return _encode(map(_neutralise, cells), csv.QUOTE_ALL)


def _decode(body: bytes, findings: Findings) -> str:
    """The text of a file; what is not text is replaced, and each line that has some is found."""
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"  # Excel's "Unicode Text"
        whole = len(body) // 2 * 2
        text = body[:whole].decode(encoding, "surrogatepass") + "\0" * (len(body) - whole)
    else:
        encoding = "UTF-8"
        text = body.decode("utf-8-sig", "surrogateescape")
    if not _NO_TEXT.search(text):
        return text
    for number, text_line in enumerate(io.StringIO(text, newline=""), start=1):
        if _NO_TEXT.search(text_line):
            msg = f"is not readable as {encoding}; save the file as CSV UTF-8"
            findings.add(_place(number), msg)
            if findings.enough:
                break
    return _NO_TEXT.sub("\ufffd", text)


def _records(text: str, findings: Findings) -> Iterator[tuple[int, list[str]]]:
    """Each record that has content, as its first line's number and its cells.

    Blank cells at the end, which spreadsheets like to add, are cut off. Text that is not CSV
    ends the records and is found.
    """
    head = _HEAD.match(text)
    bare = _QUOTED.sub("", head[0] if head else "")
    reader = csv.reader(
        # newline="": line ends inside quoted cells are the csv module's business.
        io.StringIO(text, newline=""),
        delimiter=max(",;\t", key=bare.count),
        skipinitialspace=True,  # people write: SKU1, Chair, "https://…, https://…"
        strict=True,  # else a quote that is never closed swallows the rest of the file
    )
    begins = 1
    try:
        for cells in reader:
            while cells and not cells[-1].strip():
                del cells[-1]
            if cells and not (begins == 1 and cells == ["sep="]):  # which tells Excel the separator
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as exc:
        msg = (
            f"cannot be read as CSV ({exc}); close every quoted cell, write a quote inside it as "
            f'"", and keep cells within {csv.field_size_limit()} characters'
        )
        findings.add(_place(begins), msg)


def _locate(line_no: int, names: Sequence[str], findings: Findings) -> dict[str, int]:
    """Where each known column stands; unknown, repeated and missing ones are found."""
    titles = {_fold(title): title for title in (*_REQUIRED, *_PER_IMAGE)}
    where: dict[str, int] = {}
    for index, name in enumerate(names):
        if findings.enough:
            break
        title = titles.get(_fold(name))
        if title is None:
            msg = f"is not a known column; rename or remove it. Known: {', '.join(titles.values())}"
            findings.add(_place(line_no, name.strip()[:80]), msg)
        elif title in where:
            findings.add(_place(line_no, title), "is there twice; remove one of them")
        else:
            where[title] = index
    for title in _REQUIRED:
        if title not in where:
            findings.add(_place(line_no, title), "is missing; the first line has to name it")
    return where


def _row(line_no: int, cells: Sequence[str], where: dict[str, int]) -> Row:
    """One record as a row; cells that a short record lacks are empty."""
    serial, name, urls = (
        _restore(cells[where[title]]).strip() if where[title] < len(cells) else ""
        for title in _REQUIRED
    )
    return Row(line_no, serial, name, tuple(_split_urls(urls)))


def _take_together(cells: list[str], columns: int, where: dict[str, int]) -> list[str]:
    """The cells with URLs that nobody quoted joined again, if they stand in the last column."""
    last = columns - 1
    extra = cells[columns:]
    if where[_INPUTS] != last or not all(_URL.match(cell.strip()) for cell in extra):
        return cells
    return [*cells[:last], ", ".join(cells[last:])] if extra else cells


def _split_urls(cell: str) -> Iterator[str]:
    """The texts of a URL cell; one separator belongs to the gap, any others to the URL."""
    *before, last = _NEXT_URL.split(cell)
    for piece in before:
        text = piece.rstrip()
        url = text[:-1].rstrip() if text.endswith((",", ";")) else text
        if url:
            yield url
    if last:
        yield last


def _fold(name: str) -> str:
    """A column name as it is compared: without case, blanks and underscores."""
    return re.sub(r"[\s_]+", "", name).casefold()


def _join(values: Iterable[object]) -> str:
    """The values of a product's images in one cell, an empty place for None."""
    return ", ".join("" if value is None else str(value) for value in values)


def _neutralise(text: str) -> str:
    """The text with a ``'`` in front if a spreadsheet would run it; numbers stay numbers."""
    risky = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return "'" + text if risky else text


def _restore(text: str) -> str:
    """What :func:`_neutralise` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _encode(cells: Iterable[str], quoting: Literal[0, 1]) -> bytes:
    """One CSV line; Literal: csv.QUOTE_MINIMAL or csv.QUOTE_ALL."""
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator="\r\n").writerow(cells)
    return out.getvalue().encode()


def _place(line_no: int, *column: str) -> list[str | int]:
    """Where something was found; without a column it is about the whole line."""
    return ["line", line_no, *column]
