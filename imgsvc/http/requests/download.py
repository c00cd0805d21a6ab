"""The call for the CSV report of a request."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import OPEN_REQUEST, ImageStatus
from imgsvc.http import keys
from imgsvc.http.input import schema_validation
from imgsvc.http.requests import tenancy
from imgsvc.http.requests.output_urls import output_urls
from imgsvc.http.schemas.downloads import DownloadQuery
from imgsvc.ledger import Document
from imgsvc.reports import report_csv
from imgsvc.runtime import logs
from imgsvc.storage.bucket import Bucket

_LINES = 500  # made and written at once
_log = logs.get("http")


async def download(request: web.Request) -> web.StreamResponse:
    """The CSV report, streamed."""
    wanted = schema_validation.query(DownloadQuery, request)
    found = await tenancy.status(request)
    if found["status"] in OPEN_REQUEST and not wanted.partial:
        raise ServiceError(
            ErrorCode.NOT_FINISHED,
            "The request is not finished; wait, or ask with ?partial=true.",
            retry_after_s=5,
        )
    columns: report_csv.Columns = "failed" if wanted.only else wanted.columns
    rows = request.app[keys.LEDGER].requests.products(
        found["requestId"],
        found["totalProducts"],
        with_status=ImageStatus.FAILED if wanted.only else None,
    )
    bucket = request.app[keys.BUCKET]
    # The first lines are made before the status is sent, so that an error can still be answered.
    pending = [row async for row in _take(rows, _LINES)]
    bom = request.app[keys.SETTINGS].http.csv_bom if wanted.bom is None else wanted.bom
    text = report_csv.header(columns, bom=bom) + await _lines(bucket, pending, columns)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{found["requestId"]}.csv"',
        }
    )
    await response.prepare(request)
    try:
        await response.write(text)
        while pending := [row async for row in _take(rows, _LINES)]:
            await response.write(await _lines(bucket, pending, columns))
    except ServiceError:
        # The status is sent. Only a broken transfer can still show that the report is incomplete.
        _log.exception("report.broken_off", request_id=found["requestId"])
        if request.transport:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


async def _take(rows: AsyncIterator[Document], count: int) -> AsyncIterator[Document]:
    for _ in range(count):
        try:
            yield await anext(rows)
        except StopAsyncIteration:
            return


async def _lines(bucket: Bucket, rows: list[Document], columns: report_csv.Columns) -> bytes:
    urls = iter(await output_urls(bucket, [image for row in rows for image in row["images"]]))
    return b"".join(
        report_csv.line(
            report_csv.ReportRow(
                str(row["serialNumber"]),
                row["productName"],
                [_report_image(image, next(urls)) for image in row["images"]],
            ),
            columns,
        )
        for row in rows
    )


def _report_image(image: Document, url: str | None) -> report_csv.ReportImage:
    error = image.get("error") or {}
    return report_csv.ReportImage(
        input_url=image["url"],
        status=ImageStatus(image["status"]),
        output_url=url,
        error_code=error.get("code"),
        error_detail=error.get("detail"),
        bytes_in=image.get("bytesIn"),
        bytes_out=image.get("bytesOut"),
        format=image.get("format"),
        width=image.get("width"),
        height=image.get("height"),
        note=image.get("note"),
    )
