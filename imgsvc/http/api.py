"""The calls that clients make."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import OPEN_REQUEST, ImageStatus, RequestStatus
from imgsvc.http import answers, keys, problem_details, tenancy, uploads
from imgsvc.http.limits import quotas
from imgsvc.http.schemas.downloads import DownloadQuery
from imgsvc.http.schemas.images import ImagesQuery
from imgsvc.http.schemas.requests import RequestsQuery
from imgsvc.ledger import Document
from imgsvc.reports import report_csv
from imgsvc.runtime import logs
from imgsvc.storage.bucket import Bucket

_LINES = 500  # of a report, written at once
_END = 1 << 31  # of products and of images in one
_log = logs.get("http")


async def upload(request: web.Request) -> web.Response:
    """Accept products; 202 once the ledger has them. Or only say what is wrong with them."""
    if uploads.asked(request).dry_run:
        return answers.json(await uploads.try_out(request))
    new = await uploads.read(request)
    ledger = request.app[keys.LEDGER]
    if before := await ledger.journal.accepted_before(new):
        return _accepted(before)
    try:
        async with quotas.charged(request, new.total_images, new.repeat or new.id) as give_back:
            request_id = await ledger.uploads.accept(new)
            if request_id != new.id:  # the first with its key was being written, and pays
                await give_back()
    except ServiceError as error:
        # The first may have been accepted since we asked, and its images have taken the room.
        full = error.code in {ErrorCode.QUOTA_EXCEEDED, ErrorCode.OVERLOADED}
        if full and (before := await ledger.journal.accepted_before(new)):
            return _accepted(before)
        raise
    await request.app[keys.MAILBOXES].bell.ring()
    _log.info(
        "request.accepted",
        request_id=request_id,
        products=len(new.products),
        images=new.total_images,
    )
    return _accepted(request_id)


def _accepted(request_id: str) -> web.Response:
    return answers.json(
        {"requestId": request_id, "status": RequestStatus.PENDING},
        status=202,
        headers={"Location": f"/status/{request_id}"},
    )


async def status(request: web.Request) -> web.Response:
    """The status object."""
    return answers.json(await tenancy.status(request))


async def images(request: web.Request) -> web.Response:
    """A page of images in input order."""
    wanted = problem_details.query(ImagesQuery, request)
    found = await tenancy.status(request)
    product, index = _image_cursor(wanted.cursor)
    limit = min(wanted.limit, request.app[keys.SETTINGS].http.page_limit)
    page: list[Document] = []
    next_cursor = None
    async for row in request.app[keys.LEDGER].requests.products(
        found["requestId"], found["totalProducts"], first=product, with_status=wanted.status
    ):
        first = index if row["n"] == product else 0
        for at, image in enumerate(row["images"][first:], start=first):
            if wanted.status and image["status"] != wanted.status:
                continue
            if len(page) == limit:
                next_cursor = _cursor([row["n"], at])
                break
            page.append(_image(row, at, image))
        if next_cursor:
            break
    await _fill_in_urls(request.app[keys.BUCKET], page)
    return answers.json({"images": page, "nextCursor": next_cursor})


async def requests(request: web.Request) -> web.Response:
    """A page of requests, newest first."""
    wanted = problem_details.query(RequestsQuery, request)
    limit = min(wanted.limit, request.app[keys.SETTINGS].http.page_limit)
    found = await request.app[keys.LEDGER].requests.newest(
        request[keys.TENANT],
        status=wanted.status,
        created_after=wanted.created_after,
        created_before=wanted.created_before,
        before=_request_cursor(wanted.cursor),
        limit=limit + 1,
    )
    page = found[:limit]
    more = len(found) > limit
    last = _cursor([page[-1]["createdAt"], page[-1]["requestId"]]) if more else None
    return answers.json({"requests": page, "nextCursor": last})


async def download(request: web.Request) -> web.StreamResponse:
    """The report, streamed."""
    wanted = problem_details.query(DownloadQuery, request)
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
    # The first lines are made before the status is sent: an error can still be told.
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
        # The status is sent: only a broken transfer can still say that this is not all.
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
    shown = [[_image(row, i, image) for i, image in enumerate(row["images"])] for row in rows]
    await _fill_in_urls(bucket, [image for row in shown for image in row])
    return b"".join(
        report_csv.line(
            report_csv.ReportRow(
                str(row["serialNumber"]),
                row["productName"],
                [
                    _report_image(image, stored.get("note"))
                    for image, stored in zip(of_row, row["images"], strict=True)
                ],
            ),
            columns,
        )
        for row, of_row in zip(rows, shown, strict=True)
    )


def _report_image(image: Document, note: str | None) -> report_csv.ReportImage:
    error = image["error"] or {}
    return report_csv.ReportImage(
        input_url=image["inputUrl"],
        status=ImageStatus(image["status"]),
        output_url=image["outputUrl"],
        error_code=error.get("code"),
        error_detail=error.get("detail"),
        bytes_in=image["bytesIn"],
        bytes_out=image["bytesOut"],
        format=image["format"],
        width=image["width"],
        height=image["height"],
        note=note,
    )


def _image(row: Document, index: int, image: Document) -> Document:
    return {
        "serialNumber": row["serialNumber"],
        "productName": row["productName"],
        "product": row["n"],
        "index": index,
        "inputUrl": image["url"],
        "outputUrl": image.get("output"),  # the object's name; see _fill_in_urls
        "status": image["status"],
        "error": image.get("error"),
        "bytesIn": image.get("bytesIn"),
        "bytesOut": image.get("bytesOut"),
        "format": image.get("format"),
        "width": image.get("width"),
        "height": image.get("height"),
    }


async def _fill_in_urls(bucket: Bucket, page: list[Document]) -> None:
    stored = [image for image in page if image["outputUrl"]]
    urls = await bucket.urls([image["outputUrl"] for image in stored])
    for image, url in zip(stored, urls, strict=True):
        image["outputUrl"] = url


def _cursor(position: list[Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def _position(cursor: str) -> list[Any]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = orjson.loads(base64.urlsafe_b64decode(padded))
    except (binascii.Error, ValueError):
        position = None
    if not isinstance(position, list) or len(position) != 2:  # noqa: PLR2004 - as made above
        raise _bad_cursor()
    return position


def _bad_cursor() -> ServiceError:
    return problem_details.invalid(
        [{"loc": ["cursor"], "msg": "is not a cursor; pass nextCursor of the page before"}]
    )


def _image_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    product, index = _position(cursor)
    if not isinstance(product, int) or not isinstance(index, int):
        raise _bad_cursor()
    if not 0 <= product < _END or not 0 <= index < _END:
        raise _bad_cursor()
    return product, index


def _request_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    at, last = _position(cursor)
    try:
        return datetime.fromisoformat(at).astimezone(UTC), str(last)
    except (TypeError, ValueError, OverflowError):
        raise _bad_cursor() from None
