"""The call for the images of a request."""

from __future__ import annotations

from aiohttp import web

from imgsvc.http import keys, responses
from imgsvc.http.input import schema_validation
from imgsvc.http.requests import cursors, tenancy
from imgsvc.http.requests.output_urls import output_urls
from imgsvc.http.schemas.images import ImagesQuery
from imgsvc.ledger import Document

_END = 1 << 31  # above any number of products, and of images in one


async def images(request: web.Request) -> web.Response:
    """A page of images in input order."""
    wanted = schema_validation.query(ImagesQuery, request)
    found = await tenancy.status(request)
    product, index = _image_cursor(wanted.cursor)
    limit = min(wanted.limit, request.app[keys.SETTINGS].http.page_limit)
    page: list[tuple[Document, int, Document]] = []
    next_cursor = None
    async for row in request.app[keys.LEDGER].requests.products(
        found["requestId"], found["totalProducts"], first=product, with_status=wanted.status
    ):
        first = index if row["n"] == product else 0
        for at, image in enumerate(row["images"][first:], start=first):
            if wanted.status and image["status"] != wanted.status:
                continue
            if len(page) == limit:
                next_cursor = cursors.encode([row["n"], at])
                break
            page.append((row, at, image))
        if next_cursor:
            break
    urls = await output_urls(request.app[keys.BUCKET], [image for _, _, image in page])
    views = [_view(row, at, image, url) for (row, at, image), url in zip(page, urls, strict=True)]
    return responses.json({"images": views, "nextCursor": next_cursor})


def _view(row: Document, index: int, image: Document, url: str | None) -> Document:
    """An image as clients see it.

    Args:
        row: its product.
        index: its place in the product, from 0.
        image: what the ledger has of it.
        url: of its output.
    """
    return {
        "serialNumber": row["serialNumber"],
        "productName": row["productName"],
        "product": row["n"],
        "index": index,
        "inputUrl": image["url"],
        "outputUrl": url,
        "status": image["status"],
        "error": image.get("error"),
        "bytesIn": image.get("bytesIn"),
        "bytesOut": image.get("bytesOut"),
        "format": image.get("format"),
        "width": image.get("width"),
        "height": image.get("height"),
    }


def _image_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    product, index = cursors.decode(cursor)
    if not isinstance(product, int) or not isinstance(index, int):
        raise cursors.invalid()
    if not 0 <= product < _END or not 0 <= index < _END:
        raise cursors.invalid()
    return product, index
