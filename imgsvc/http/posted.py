"""What a client posted, examined: its products, how to treat them, and all that is wrong."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe, Subscription
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http import problem_details, strict_json
from imgsvc.http.schemas.uploads import Instructions, Product, Upload
from imgsvc.http.strict_json import JsonError
from imgsvc.ledger import NewProduct
from imgsvc.outbound.guard import Guard
from imgsvc.reports import upload_csv
from imgsvc.runtime.settings import Http

Place = list[Any]
Products = Sequence[tuple[Place, NewProduct]]

_LONGEST_URLS = upload_csv.LONGEST_CELL // 2  # of a product, which its report holds in one cell


@dataclass(frozen=True, slots=True)
class Posted:
    """What was posted; to be used only if nothing is wrong with it.

    Attributes:
        products: each with its place in what was posted; what of them could be read.
        count: how many products there are, read or not.
        recipe: how to treat their images.
        webhook: whom to tell.
        expires_in_days: when it is to be erased, if the client says so.
        problems: what is wrong.
        code: what that is called.
    """

    products: Products
    count: int
    recipe: Recipe
    webhook: Subscription | None
    expires_in_days: float | None
    problems: ValidationProblems
    code: ErrorCode

    @property
    def total_images(self) -> int:
        """Images of all products that could be read."""
        return sum(len(product.input_urls) for _, product in self.products)


def examine(
    content_type: str, form: dict[str, bytes], settings: Http, keep_days: float, guard: Guard
) -> Posted:
    """Look at all of it, within the limits of the settings.

    Args:
        content_type: what ``file`` is: ``application/json`` with everything in it, else CSV.
        form: ``file`` and the fields beside it.
        settings: limits.
        keep_days: how long requests are kept at most; 0: for ever.
        guard: knows which URLs can be used.
    """
    return _Examiner(settings, keep_days, guard).posted(content_type, form)


class _Examiner:
    """Collects what is wrong with one upload."""

    def __init__(self, settings: Http, keep_days: float, guard: Guard) -> None:
        self._settings = settings
        self._keep_days = keep_days
        self._guard = guard
        self._problems = ValidationProblems()
        self._code = ErrorCode.VALIDATION_FAILED

    def posted(self, content_type: str, form: dict[str, bytes]) -> Posted:
        is_json = content_type == "application/json"
        said = self._object(form["file"]) if is_json else self._fields(form)
        listed = said.pop("products", []) if is_json else []
        beside = self._instructions(said)
        webhook = self._webhook(beside.webhook, beside.webhook_url)
        if content_type == "text/csv" and webhook and (webhook.secret or webhook.headers):
            self._problems.add(
                ["webhook"],
                "secret and headers do not belong into an address, which proxies write into "
                "their logs; send a form or JSON",
            )
        products, count = self._listed(listed) if is_json else self._sheet(form["file"])
        found = Posted(
            products,
            count,
            beside.options,
            webhook,
            beside.expires_in_days,
            self._problems,
            self._code,
        )
        self._check(found)
        return found

    def _object(self, body: bytes) -> dict[str, Any]:
        """What JSON holds."""
        if self._holds_too_much(body):
            self._problems.add(
                [],
                f"The body holds far more values than {self._settings.max_products} products and "
                f"{self._settings.max_images} images need; split it into several uploads.",
            )
            return {}
        try:
            said = strict_json.parse(body)
        except JsonError as error:
            self._code = error.code
            self._problems.add(error.loc, str(error))
            return {}
        if not isinstance(said, dict):
            self._problems.add([], "The body has to be a JSON object with products.")
            return {}
        if not isinstance(said.get("products"), list) or not said["products"]:
            self._problems.add(["products"], "is missing, empty or not a list of products")
            return {**said, "products": []}
        return said

    def _holds_too_much(self, body: bytes) -> bool:
        """Told without parsing, which millions of small values would make long and large."""
        products, images = self._settings.max_products, self._settings.max_images
        # What stands in texts is counted too: it is little beside what is allowed.
        return (
            body.count(b"[") + body.count(b"{") > 4 * products + 64
            or body.count(b",") > 8 * (products + images) + 512
        )

    def _fields(self, form: dict[str, bytes]) -> dict[str, Any]:
        """What the fields beside a CSV hold: all but one are JSON."""
        said: dict[str, Any] = {}
        for name, text in form.items():
            if name == "file" or not text.strip():  # an empty field of a form is one left out
                continue
            try:
                said[name] = text.decode() if name == "webhookUrl" else strict_json.parse(text)
            except UnicodeDecodeError:
                self._problems.add([name], "is not readable as UTF-8")
            except JsonError as error:
                self._problems.add([name, *error.loc], str(error))
        return said

    def _instructions(self, said: dict[str, Any]) -> Instructions:
        """Everything but the products; what is wrong in it is as if it were left out."""
        try:
            return Instructions.model_validate(said)
        except ValidationError as error:
            wrong = problem_details.collect(Upload, error, self._problems)
            right = {name: value for name, value in said.items() if name not in wrong}
            return self._instructions(right) if len(right) < len(said) else Instructions()

    def _listed(self, listed: list[Any]) -> tuple[Products, int]:
        """The products of JSON."""
        # One by one, for a list of all that is wrong with all of them could fill the memory.
        products: list[tuple[Place, NewProduct]] = []
        for i, each in enumerate(listed[: self._settings.max_products]):
            if self._problems.enough:
                break
            products.append(self._product(["products", i], each))
        return products, len(listed)

    def _product(self, place: Place, said: Any) -> tuple[Place, NewProduct]:
        try:
            product = Product.model_validate(said)
        except ValidationError as error:
            wrong = problem_details.collect(Product, error, self._problems, below=place)
            product = _without(wrong, said)
        return place, NewProduct(product.serial_number, product.product_name, product.input_urls)

    def _sheet(self, csv: bytes) -> tuple[Products, int]:
        """The products of a CSV."""
        before = self._problems.count
        found = upload_csv.parse(csv, self._problems, max_rows=self._settings.max_products)
        if self._problems.count > before:
            self._code = ErrorCode.INVALID_CSV
        return [
            (["line", row.line], NewProduct(row.serial_number, row.product_name, row.urls))
            for row in found.rows
        ], found.count

    def _webhook(self, chosen: Subscription | None, url: str | None) -> Subscription | None:
        if chosen and url is not None:
            self._problems.add(["webhook"], "give webhook or webhookUrl, not both")
        if chosen:
            self._check_url(["webhook", "url"], chosen.url)
            return chosen
        if url is None:
            return None
        self._check_url(["webhookUrl"], url)
        return Subscription(url=url)

    def _check(self, posted: Posted) -> None:
        settings = self._settings
        if self._keep_days and (posted.expires_in_days or 0) > self._keep_days:
            self._problems.add(
                ["expiresInDays"],
                f"nothing is kept longer here than {self._keep_days:g} days; say that or less",
            )
        too_many = False
        for count, most, what in (
            (posted.count, settings.max_products, "products"),
            (posted.total_images, settings.max_images, "images"),
        ):
            if count > most:
                too_many = True
                self._problems.add(
                    ["products"],
                    f"{count} {what} are more than the {most} allowed in one request; split them "
                    "into several uploads",
                )
        if too_many:
            return  # each URL costs time, and all this will come again
        for loc, product in posted.products:
            if self._problems.enough:
                return
            self._check_product([*loc, "inputUrls"], product)

    def _check_product(self, place: Place, product: NewProduct) -> None:
        most = self._settings.max_urls_per_product
        if len(product.input_urls) > most:
            self._problems.add(
                place,
                f"{len(product.input_urls)} URLs are more than the {most} allowed for one product",
            )
            return
        length = sum(map(len, product.input_urls))
        if length > _LONGEST_URLS:
            msg = f"have {length} characters together; {_LONGEST_URLS} are the most for one product"
            self._problems.add(place, msg)
            return
        for index, url in enumerate(product.input_urls):
            self._check_url([*place, index], url)

    def _check_url(self, loc: Place, url: str) -> None:
        try:
            self._guard.parse(url)
        except ServiceError as error:
            self._problems.add(loc, error.detail)


def _without(wrong: Container[str | int], said: Any) -> Product:
    """A product that is refused, as far as its fields are right; nothing stands for the others."""
    fields = said if isinstance(said, dict) and wrong else {}
    right = {
        name: fields[about.alias]
        for name, about in Product.model_fields.items()
        if about.alias in fields and about.alias not in wrong
    }
    return Product.model_construct(
        **{"serial_number": "", "product_name": "", "input_urls": [], **right}
    )
