"""The call for the images of a request."""

from __future__ import annotations

from aiohttp import web

from imgsvc.http import keys, responses
from imgsvc.http.input import schema_validation
from imgsvc.http.requests import cursors, image_view, tenancy
from imgsvc.http.schemas.images import ImagesQuery
from imgsvc.ledger import Document

_END = 1 << 31  # above any number of products, and of images in one


async def images(request: web.Request) -> web.Response:
    """A page of images in input order."""
    wanted = schema_validation.query(ImagesQuery, request)
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
                next_cursor = cursors.encode([row["n"], at])
                break
            page.append(image_view.view(row, at, image))
        if next_cursor:
            break
    await image_view.fill_in_urls(request.app[keys.BUCKET], page)
    return responses.json({"images": page, "nextCursor": next_cursor})


def _image_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    product, index = cursors.decode(cursor)
    if not isinstance(product, int) or not isinstance(index, int):
        raise cursors.invalid()
    if not 0 <= product < _END or not 0 <= index < _END:
        raise cursors.invalid()
    return product, index
