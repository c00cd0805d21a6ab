"""CSV in (RFC 4180): the products that clients post, and what is wrong in which line and column.

Whatever :mod:`imgsvc.reports.report_csv` writes is read back unchanged.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imgsvc.domain.model import LONGEST_TEXT
from imgsvc.domain.validation import ValidationProblems
from imgsvc.reports import cells, columns
from imgsvc.reports.columns import INPUTS, NAME, REQUIRED, SERIAL

LONGEST_CELL = 2 * 1024 * 1024
"""Characters; more than the URLs of a product can have, and little compared with a whole file."""

# The csv module has one limit for the whole process, where nobody else reads CSV. Its default is
# shorter than a cell with a hundred long URLs.
csv.field_size_limit(LONGEST_CELL)

_SEPARATORS = ",;\t|"

# The header, after any blank lines; its quoted cells may span lines. Possessive quantifiers, so that
# a quote that is never closed takes one pass.
_HEAD = re.compile(r'\s*+(?:[^"\r\n]++|"[^"]*+")*+')
_QUOTED = re.compile(r'"[^"]*"')

# NUL, and what decoding makes of bytes that are not UTF-8.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Row:
    """One product as posted; a missing value is empty, and among the problems.

    Attributes:
        line: where it begins in the file, counted from 1.
        serial_number: what identifies it.
        product_name: what it is called.
        urls: texts, which are not checked to be usable URLs.
    """

    line: int
    serial_number: str
    product_name: str
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The products of a file.

    Attributes:
        rows: those that were read, without rows that have too many cells.
        count: of all rows, unless so much is wrong that reading ended early.
        problems: all that is wrong, with its line and, where known, its column; the rows are to be
            used only if there are none.
    """

    rows: Sequence[Row]
    count: int
    problems: ValidationProblems


def parse(body: bytes, *, max_rows: int) -> Sheet:
    """The products of a CSV file, and what is wrong with it.

    Columns may come in any order, under any name that :mod:`imgsvc.reports.columns` knows; the
    columns that our reports add are ignored. The separator (``,``, ``;``, tab or ``|``) is the one
    that the first line uses, be it the header or Excel's ``sep=;``. Empty lines are skipped.

    Args:
        body: the file in UTF-8, already bounded in size.
        max_rows: how many rows are read; the rest is only counted.
    """
    problems = ValidationProblems()
    records = _records(_text(body, problems), problems)
    header_line, names = next(records, (1, []))
    where = _locate(header_line, names, problems)
    rows: list[Row] = []
    count = 0
    if not where.keys() >= {*REQUIRED}:
        return Sheet(rows, count, problems)
    for line_no, found in records:
        if problems.enough:
            break
        count += 1
        if count > max_rows:
            continue
        record = _rejoin(found, len(names), where)
        if len(record) > len(names):
            problems.add(
                _place(line_no),
                f"has {len(record)} cells under {len(names)} columns; "
                'put " around a cell that contains the separator',
            )
            continue
        rows.append(_row(line_no, record, where, problems))
    if not count and not problems.count:
        problems.add(_place(header_line), "is the last one; add a line per product")
    return Sheet(rows, count, problems)


def _text(body: bytes, problems: ValidationProblems) -> str:
    """The text of a file; unreadable characters are replaced, and each line with some is reported."""
    text = body.decode("utf-8-sig", "surrogateescape")
    if not _NO_TEXT.search(text):
        return text
    for number, text_line in enumerate(io.StringIO(text, newline=""), start=1):
        if _NO_TEXT.search(text_line):
            msg = (
                "is not readable as UTF-8; save the file as CSV UTF-8, or name its charset in the "
                "Content-Type"
            )
            problems.add(_place(number), msg)
            if problems.enough:
                break
    return _NO_TEXT.sub("\ufffd", text)


def _records(text: str, problems: ValidationProblems) -> Iterator[tuple[int, list[str]]]:
    """Each record that has content, as its first line's number and its cells.

    Blank cells at the end, which spreadsheets like to add, are cut off. Text that is not CSV ends
    the records and is reported.
    """
    head = _HEAD.match(text)
    bare = _QUOTED.sub("", head[0] if head else "")
    reader = csv.reader(
        # newline="": the csv module handles line ends inside quoted cells.
        io.StringIO(text, newline=""),
        delimiter=max(_SEPARATORS, key=bare.count),
        skipinitialspace=True,  # people write: SKU1, Chair, "https://…, https://…"
        strict=True,  # otherwise an unclosed quote would swallow the rest of the file
    )
    begins = 1
    try:
        for record in reader:
            while record and not record[-1].strip():
                del record[-1]
            # "sep=;" tells Excel the separator.
            if record and not (begins == 1 and record == ["sep="]):
                yield begins, record
            begins = reader.line_num + 1
    except csv.Error as exc:
        msg = (
            f"cannot be read as CSV ({exc}); close every quoted cell, write a quote inside it as "
            f'"", and keep cells within {LONGEST_CELL} characters'
        )
        problems.add(_place(begins), msg)


def _locate(line_no: int, names: Sequence[str], problems: ValidationProblems) -> dict[str, int]:
    """The index of each known column; unknown, repeated and missing ones are reported."""
    where: dict[str, int] = {}
    for index, name in enumerate(names):
        if problems.enough:
            break
        title = columns.title(name)
        if title is None:
            msg = f"is not a known column; rename or remove it. Known: {columns.known()}"
            problems.add(_place(line_no, name.strip()[:80]), msg)
        elif title in where:
            both = f'"{names[where[title]].strip()}" and "{name.strip()}"'
            problems.add(_place(line_no, title), f"is there twice, as {both}; remove one of them")
        else:
            where[title] = index
    for title in REQUIRED:
        if title not in where:
            problems.add(_place(line_no, title), "is missing; the first line has to name it")
    return where


def _row(
    line_no: int, record: Sequence[str], where: dict[str, int], problems: ValidationProblems
) -> Row:
    """One record as a row; cells that a short record lacks are empty."""
    serial, name, inputs = (
        cells.read_text(record[where[title]]) if where[title] < len(record) else ""
        for title in REQUIRED
    )
    for title, value in ((SERIAL, serial), (NAME, name)):
        if len(value) > LONGEST_TEXT:
            msg = f"has {len(value)} characters; {LONGEST_TEXT} are the most"
            problems.add(_place(line_no, title), msg)
    urls: list[str] = []
    try:
        urls = cells.read_urls(inputs)
        missing = [t for t, found in zip(REQUIRED, (serial, name, urls), strict=True) if not found]
    except cells.AmbiguousError as doubt:
        missing = [t for t, found in ((SERIAL, serial), (NAME, name)) if not found]
        problems.add(_place(line_no, INPUTS), str(doubt))
    for title in missing:
        problems.add(_place(line_no, title), "is empty; fill it in or remove the line")
    return Row(line_no, serial, name, tuple(urls))


def _rejoin(record: list[str], width: int, where: dict[str, int]) -> list[str]:
    """The record, with the URLs of the last column joined again if nobody quoted them."""
    last = width - 1
    if len(record) <= width or where[INPUTS] != last:
        return record
    extra = [cell for cell in record[width:] if cell.strip()]
    if not all(cells.begins_as_url(cell) for cell in extra):
        return record
    return [*record[:last], cells.join([record[last], *extra])]


def _place(line_no: int, *column: str) -> list[str | int]:
    """The place of a problem; without a column it is about the whole line."""
    return ["line", line_no, *column]
