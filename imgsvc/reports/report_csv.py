"""CSV out (RFC 4180): a request's products and what became of their images.

:mod:`imgsvc.reports.upload_csv` reads back whatever is written here, so a report can be posted
again. These are plain functions; the caller streams, one :func:`line` after the other.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from imgsvc.domain.model import ImageStatus
from imgsvc.reports import cells
from imgsvc.reports.columns import INPUTS, NAME, RESULTS, SERIAL

Columns = Literal["basic", "full", "failed"]
"""Which report: four columns, all columns, or only what failed, to be posted again."""

_VALUES: dict[str, Callable[[Any], object]] = {
    "Output Image URLs": attrgetter("output_url"),
    "Status": attrgetter("status"),
    "Error Codes": attrgetter("error_code"),
    # A ", " inside a detail would shift those of the next images.
    "Error Details": lambda image: (image.error_detail or "").replace(", ", "; "),
    "Bytes In": attrgetter("bytes_in"),
    "Bytes Out": attrgetter("bytes_out"),
    "Formats": attrgetter("format"),
    "Widths": attrgetter("width"),
    "Heights": attrgetter("height"),
    "Notes": attrgetter("note"),
}
"""Title of a column -> what it shows of an image."""

_RESULTS: dict[Columns, tuple[str, ...]] = {
    "basic": ("Output Image URLs",),
    "full": RESULTS,
    "failed": ("Error Codes",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportImage:
    """One image of a report; None leaves an empty place in its column."""

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
    """One product of a report, with its images in the order in which they were posted."""

    serial_number: str
    product_name: str
    images: Sequence[ReportImage]


def header(columns: Columns = "basic", *, bom: bool = False) -> bytes:
    """The first line of a report, with its line end, in UTF-8.

    Args:
        columns: which report.
        bom: begin with a byte order mark; without it Excel does not recognise UTF-8.
    """
    first = _encoded((SERIAL, NAME, INPUTS, *_RESULTS[columns]), csv.QUOTE_MINIMAL)
    return codecs.BOM_UTF8 + first if bom else first


def line(row: ReportRow, columns: Columns = "basic") -> bytes:
    """One product as a line of a report, with its line end, in UTF-8.

    Within a cell the images are joined with ``, ``. A missing value leaves an empty place, so that
    its neighbours stay where they are: ``u1, , u3``. No spreadsheet runs a cell as a formula.

    Returns:
        The line; for ``failed`` with the failed images only, and empty if there are none.
    """
    images = row.images
    if columns == "failed":
        images = [image for image in images if image.status is ImageStatus.FAILED]
        if not images:
            return b""
    results = (cells.join(map(_VALUES[title], images)) for title in _RESULTS[columns])
    record = (
        cells.write_text(row.serial_number),
        cells.write_text(row.product_name),
        cells.write_urls([image.input_url for image in images]),
        *map(cells.neutralise, results),
    )
    # Everything is quoted: LibreOffice by default also splits unquoted cells at ";" and tabs, and
    # could so find a formula in the middle of a name.
    return _encoded(record, csv.QUOTE_ALL)


def _encoded(record: Iterable[str], quoting: Literal[0, 1]) -> bytes:
    """One CSV line; Literal: csv.QUOTE_MINIMAL or csv.QUOTE_ALL."""
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator="\r\n").writerow(record)
    return out.getvalue().encode()
