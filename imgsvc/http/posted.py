"""What a client posted, examined: its products, how to treat them, and all that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from imgsvc import report
from imgsvc.errors import ErrorCode, ServiceError
from imgsvc.findings import Findings
from imgsvc.guard import Guard
from imgsvc.http import problems
from imgsvc.http.schemas import Product, Upload
from imgsvc.ledger import NewProduct
from imgsvc.model import Recipe, Subscription
from imgsvc.settings import Http

Place = list[Any]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Posted:
    """What was posted; to be used only if nothing is wrong with it.

    Attributes:
        products: each with its place in what was posted; what of them could be read.
        count: how many products there are, read or not.
        recipe: how to treat their images.
        webhook: whom to tell.
        findings: what is wrong.
        code: what that is called.
    """

    products: Sequence[tuple[Place, NewProduct]]
    count: int
    recipe: Recipe
    webhook: Subscription | None
    findings: Findings
    code: ErrorCode

    @property
    def total_images(self) -> int:
        """Images of all products that could be read."""
        return sum(len(product.input_urls) for _, product in self.products)


def examine(content_type: str, form: dict[str, bytes], settings: Http, guard: Guard) -> Posted:
    """Look at all of it, within the limits of the settings.

    Args:
        content_type: what ``file`` is: ``application/json`` with everything in it, else CSV.
        form: ``file`` and the fields beside it.
        settings: limits.
        guard: knows which URLs can be used.
    """
    return _Examiner(settings, guard).posted(content_type, form)


class _Examiner:
    """Collects what is wrong with one upload."""

    def __init__(self, settings: Http, guard: Guard) -> None:
        self._settings = settings
        self._guard = guard
        self._findings = Findings()
        self._code = ErrorCode.VALIDATION_FAILED

    def posted(self, content_type: str, form: dict[str, bytes]) -> Posted:
        if content_type == "application/json":
            found = self._json(form["file"])
        else:
            found = self._csv(content_type, form)
        self._check(found)
        return found

    def _json(self, body: bytes) -> Posted:
        try:
            upload = Upload.model_validate_json(body)
        except ValidationError as error:
            self._code = problems.collect(error, self._findings)
            return self._result(_legible(body), Recipe(), None)
        webhook = self._webhook(upload.webhook, upload.webhook_url)
        products = [_new(product) for product in upload.products]
        return self._result(products, upload.options, webhook)

    def _csv(self, content_type: str, form: dict[str, bytes]) -> Posted:
        recipe = self._beside(form, "options", Recipe) or Recipe()
        chosen = self._beside(form, "webhook", Subscription)
        webhook_url = form.get("webhookUrl", b"").decode(errors="replace") or None
        webhook = self._webhook(chosen, webhook_url)
        if content_type == "text/csv" and chosen and (chosen.secret or chosen.headers):
            self._findings.add(
                ["webhook"],
                "secret and headers do not belong into an address, which proxies write into "
                "their logs; send a form or JSON",
            )
        before = self._findings.count
        sheet = report.parse(form["file"], self._findings, max_rows=self._settings.max_products)
        if self._findings.count > before:
            self._code = ErrorCode.INVALID_CSV
        products: list[tuple[Place, NewProduct]] = [
            (["line", row.line], NewProduct(row.serial_number, row.product_name, row.urls))
            for row in sheet.rows
        ]
        return Posted(products, sheet.count, recipe, webhook, self._findings, self._code)

    def _result(
        self, products: Sequence[NewProduct], recipe: Recipe, webhook: Subscription | None
    ) -> Posted:
        placed: list[tuple[Place, NewProduct]] = [
            (["products", i], product) for i, product in enumerate(products)
        ]
        return Posted(placed, len(placed), recipe, webhook, self._findings, self._code)

    def _beside(self, form: dict[str, bytes], name: str, shape: type[M]) -> M | None:
        """A field that holds JSON beside a CSV; None if it is not there or wrong."""
        if name not in form:
            return None
        try:
            return shape.model_validate_json(form[name])
        except ValidationError as error:
            problems.collect(error, self._findings, below=[name])
            return None

    def _webhook(self, chosen: Subscription | None, url: str | None) -> Subscription | None:
        if chosen and url is not None:
            self._findings.add(["webhook"], "give webhook or webhookUrl, not both")
        if chosen:
            self._check_url(["webhook", "url"], chosen.url)
            return chosen
        if url is None:
            return None
        self._check_url(["webhookUrl"], url)
        return Subscription(url=url)

    def _check(self, posted: Posted) -> None:
        settings = self._settings
        too_many = False
        for count, most, what in (
            (posted.count, settings.max_products, "products"),
            (posted.total_images, settings.max_images, "images"),
        ):
            if count > most:
                too_many = True
                self._findings.add(
                    ["products"],
                    f"{count} {what} are more than the {most} allowed in one request; split them "
                    "into several uploads",
                )
        if too_many:
            return  # each URL costs time, and all this will come again
        for loc, product in posted.products:
            if self._findings.enough:
                return
            self._check_product([*loc, "inputUrls"], product)

    def _check_product(self, place: Place, product: NewProduct) -> None:
        most = self._settings.max_urls_per_product
        if len(product.input_urls) > most:
            self._findings.add(
                place,
                f"{len(product.input_urls)} URLs are more than the {most} allowed for one product",
            )
            return
        for index, url in enumerate(product.input_urls):
            self._check_url([*place, index], url)

    def _check_url(self, loc: Place, url: str) -> None:
        try:
            self._guard.parse(url)
        except ServiceError as error:
            self._findings.add(loc, error.detail)


def _new(product: Product) -> NewProduct:
    return NewProduct(product.serial_number, product.product_name, product.input_urls)


def _legible(body: bytes) -> list[NewProduct]:
    """What can be read of products in JSON that is not quite what it should be."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    products = said.get("products") if isinstance(said, dict) else None
    return [_blurred(product) for product in products] if isinstance(products, list) else []


def _blurred(product: Any) -> NewProduct:
    fields = product if isinstance(product, dict) else {}
    serial, name = fields.get("serialNumber"), fields.get("productName")
    urls = fields.get("inputUrls")
    return NewProduct(
        serial if isinstance(serial, str) else "",
        name if isinstance(name, str) else "",
        urls if isinstance(urls, list) and all(isinstance(url, str) for url in urls) else (),
    )
