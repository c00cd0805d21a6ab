"""Reading what clients post: JSON, CSV or a form, counted while it arrives, then validated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any, TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel

from imgsvc import report
from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.http import keys, problems
from imgsvc.http.schemas import CsvQuery, Product, Upload
from imgsvc.ledger import NewProduct, NewRequest
from imgsvc.model import Recipe, Subscription
from imgsvc.net import Guard
from imgsvc.settings import Http

_CHUNK = 64 * 1024
_FORM_FIELDS = ("file", "webhookUrl", "webhook", "options")
_LARGE = 256 * 1024  # from here on validating takes long enough to be done beside the loop

_SMALL = 64 * 1024

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


async def read(request: web.Request) -> NewRequest:
    """The request that a client posts.

    Raises:
        ServiceError: INVALID_JSON, INVALID_CSV, VALIDATION_FAILED, BODY_TOO_LARGE,
            UNSUPPORTED_MEDIA_TYPE or REQUEST_TIMEOUT.
    """
    settings = request.app[keys.SETTINGS].http
    form = await _in_time(_form(request, settings.body_limit_bytes), settings)
    reader = _Reader(settings, request.app[keys.OUTBOUND].guard)
    body = form.get("file", b"")
    if len(body) > _LARGE:
        new = await asyncio.to_thread(reader.request, request.content_type, form)
    else:
        new = reader.request(request.content_type, form)
    return replace(new, call_id=request[keys.CALL_ID], tenant=request[keys.TENANT])


async def read_json(shape: type[M], request: web.Request) -> M:
    """A small JSON body as ``shape``.

    Raises:
        ServiceError: INVALID_JSON, VALIDATION_FAILED, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE or
            REQUEST_TIMEOUT.
    """
    if request.content_type != "application/json":
        raise ServiceError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
    settings = request.app[keys.SETTINGS].http
    body = await _in_time(_collect(_pieces(request), _SMALL), settings)
    return problems.validated(shape, None, json=body)


async def _in_time(reading: Awaitable[T], settings: Http) -> T:
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            return await reading
    except TimeoutError:
        raise ServiceError(ErrorCode.REQUEST_TIMEOUT) from None


async def _form(request: web.Request, limit: int) -> dict[str, bytes]:
    """The body as ``file`` with the fields beside it, whatever way they were sent."""
    match request.content_type:
        case "application/json":
            return {"file": await _collect(_pieces(request), limit)}
        case "text/csv":
            beside = problems.query(CsvQuery, request).model_dump(by_alias=True, exclude_none=True)
            body = await _collect(_pieces(request), limit)
            return {"file": body} | {name: text.encode() for name, text in beside.items()}
        case "multipart/form-data":
            return await _multipart(request, limit)
    raise ServiceError(ErrorCode.UNSUPPORTED_MEDIA_TYPE)


async def _multipart(request: web.Request, limit: int) -> dict[str, bytes]:
    form: dict[str, bytes] = {}
    try:
        async for part in await request.multipart():
            name = part.name if isinstance(part, BodyPartReader) else None
            if not isinstance(part, BodyPartReader) or name not in _FORM_FIELDS:
                raise problems.invalid(
                    [{"loc": [name or "?"], "msg": f"is not one of {', '.join(_FORM_FIELDS)}"}]
                )
            if name in form:
                raise problems.invalid([{"loc": [name], "msg": "is given twice"}])
            used = sum(map(len, form.values()))
            form[name] = await _collect(_part(part), limit, used)
    except (ValueError, AssertionError, HttpProcessingError, web.RequestPayloadError):
        raise ServiceError(ErrorCode.BAD_REQUEST, "The form is not well-formed.") from None
    if "file" not in form:
        raise problems.invalid([{"loc": ["file"], "msg": "is missing; attach the CSV"}])
    return form


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_chunked(_CHUNK):
        yield piece


async def _part(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(_CHUNK):
        yield bytes(piece)


async def _collect(pieces: AsyncIterator[bytes], limit: int, used: int = 0) -> bytes:
    """All pieces, counted: aiohttp's own limit does not see these."""
    body = bytearray()
    async for piece in pieces:
        if used + len(body) + len(piece) > limit:
            raise ServiceError(
                ErrorCode.BODY_TOO_LARGE,
                f"The body is larger than {limit} bytes; split it into several uploads.",
            )
        body += piece
    return bytes(body)


class _Reader:
    """Validates what was posted, within the limits of the settings."""

    def __init__(self, settings: Http, guard: Guard) -> None:
        self._settings = settings
        self._guard = guard
        self._errors: list[dict[str, Any]] = []

    def request(self, content_type: str, form: dict[str, bytes]) -> NewRequest:
        if content_type == "application/json":
            upload = problems.validated(Upload, None, json=form["file"])
            recipe = upload.options
            webhook = self._webhook(upload.webhook, upload.webhook_url)
            products = [
                (["products", i], _new(product)) for i, product in enumerate(upload.products)
            ]
        else:
            recipe = self._beside(form, "options", Recipe) or Recipe()
            chosen = self._beside(form, "webhook", Subscription)
            webhook_url = form.get("webhookUrl", b"").decode(errors="replace") or None
            webhook = self._webhook(chosen, webhook_url)
            if content_type == "text/csv" and chosen and (chosen.secret or chosen.headers):
                self._refuse(
                    ["webhook"],
                    "secret and headers do not belong into an address, which proxies write into "
                    "their logs; send a form or JSON",
                )
            products = self._rows(form["file"])
        self._check(products)
        if self._errors:
            raise problems.invalid(self._errors)
        return NewRequest([p for _, p in products], recipe, webhook)

    def _beside(self, form: dict[str, bytes], name: str, shape: type[M]) -> M | None:
        """A field that holds JSON beside a CSV; None if it is not there or wrong."""
        if name not in form:
            return None
        try:
            return problems.validated(shape, None, json=form[name])
        except ServiceError as error:
            inner = error.errors or [{"loc": [], "msg": error.detail}]
            self._errors += [{**e, "loc": [name, *e["loc"]]} for e in inner]
            return None

    def _webhook(self, chosen: Subscription | None, url: str | None) -> Subscription | None:
        if chosen and url is not None:
            self._refuse(["webhook"], "give webhook or webhookUrl, not both")
        if chosen:
            self._check_url(["webhook", "url"], chosen.url)
            return chosen
        if url is None:
            return None
        self._check_url(["webhookUrl"], url)
        return Subscription(url=url)

    def _rows(self, csv: bytes) -> list[tuple[list[Any], NewProduct]]:
        rows = report.parse(csv, max_rows=self._settings.max_products)
        return [
            (["line", row.line], NewProduct(row.serial_number, row.product_name, row.urls))
            for row in rows
        ]

    def _check(self, products: list[tuple[list[Any], NewProduct]]) -> None:
        settings = self._settings
        if len(products) > settings.max_products:
            self._refuse(
                ["products"],
                f"{len(products)} products are more than the {settings.max_products} allowed; "
                "split them into several uploads",
            )
        total = sum(len(product.input_urls) for _, product in products)
        if total > settings.max_images:
            self._refuse(
                ["products"],
                f"{total} images are more than the {settings.max_images} allowed in one request; "
                "split them into several uploads",
            )
        for loc, product in products:
            if len(self._errors) >= problems.MAX_ERRORS:
                return
            self._check_product(loc, product)

    def _check_product(self, loc: list[Any], product: NewProduct) -> None:
        place = [*loc, "inputUrls"]
        if len(product.input_urls) > self._settings.max_urls_per_product:
            self._refuse(
                place,
                f"{len(product.input_urls)} URLs are more than the "
                f"{self._settings.max_urls_per_product} allowed for one product",
            )
            return
        for index, url in enumerate(product.input_urls):
            self._check_url([*place, index], url)

    def _check_url(self, loc: list[Any], url: str) -> None:
        try:
            self._guard.parse(url)
        except ServiceError as error:
            self._refuse(loc, error.detail)

    def _refuse(self, loc: list[Any], msg: str) -> None:
        self._errors.append({"loc": loc, "msg": msg})


def _new(product: Product) -> NewProduct:
    return NewProduct(product.serial_number, product.product_name, product.input_urls)
