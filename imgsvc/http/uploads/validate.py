"""The meaning of an upload: its products and instructions, and all that is wrong with them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe, Subscription
from imgsvc.domain.validation import ValidationProblems
from imgsvc.http.input import schema_validation
from imgsvc.http.schemas.uploads import Instructions, Product, Upload
from imgsvc.http.uploads.parse import Parsed
from imgsvc.ledger import NewProduct
from imgsvc.outbound.guard import Guard
from imgsvc.reports import upload_csv
from imgsvc.reports.upload_csv import Sheet
from imgsvc.runtime.settings import Http

Place = list[Any]
Products = Sequence[tuple[Place, NewProduct]]

_LONGEST_URLS = upload_csv.LONGEST_CELL // 2  # of a product, which its report holds in one cell


@dataclass(frozen=True, slots=True)
class Validated:
    """An upload that was validated; to be used only if it has no problems.

    Attributes:
        products: those that could be read, each with its place in the upload.
        count: how many products there are, readable or not.
        recipe: how to encode their images.
        webhook: where to announce the end.
        expires_in_days: when to erase the request, if the client says so.
        problems: all that is wrong.
        code: the refusal for them.
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


def validate(parsed: Parsed, limits: Http, keep_days: float, guard: Guard) -> Validated:
    """Validate an upload; whatever is wrong is added to its problems.

    Args:
        parsed: the upload.
        limits: how much of everything there may be.
        keep_days: how long requests are kept at most; 0: for ever.
        guard: knows which URLs can be used.
    """
    return _Validator(limits, keep_days, guard, parsed.problems).validated(parsed)


class _Validator:
    """Validates one upload."""

    def __init__(
        self, limits: Http, keep_days: float, guard: Guard, problems: ValidationProblems
    ) -> None:
        self._limits = limits
        self._keep_days = keep_days
        self._guard = guard
        self._problems = problems

    def validated(self, parsed: Parsed) -> Validated:
        code = parsed.code
        instructions = self._instructions(parsed.instructions)
        webhook = self._webhook(instructions, in_query=parsed.media_type == "text/csv")
        if isinstance(parsed.products, Sheet):
            sheet = parsed.products
            self._problems.extend(sheet.problems)
            if sheet.problems.count:
                code = ErrorCode.INVALID_CSV
            products, count = _of_sheet(sheet), sheet.count
        else:
            products, count = self._of_json(parsed.products), len(parsed.products)
        validated = Validated(
            products,
            count,
            instructions.options,
            webhook,
            instructions.expires_in_days,
            self._problems,
            code,
        )
        self._check_expiry(instructions)
        if self._check_size(validated):  # else each URL would be checked now and again later
            self._check_products(products)
        return validated

    def _instructions(self, values: Mapping[str, Any]) -> Instructions:
        """Everything but the products; a field that is wrong counts as left out."""
        try:
            return Instructions.model_validate(values)
        except ValidationError as error:
            wrong = schema_validation.collect(Upload, error, self._problems)
            right = {name: value for name, value in values.items() if name not in wrong}
            return self._instructions(right) if len(right) < len(values) else Instructions()

    def _webhook(self, instructions: Instructions, *, in_query: bool) -> Subscription | None:
        webhook, url = instructions.webhook, instructions.webhook_url
        if webhook and url is not None:
            self._problems.add(["webhook"], "give webhook or webhookUrl, not both")
        if webhook:
            self._check_url(["webhook", "url"], webhook.url)
        elif url is not None:
            self._check_url(["webhookUrl"], url)
            webhook = Subscription(url=url)
        if in_query and webhook and (webhook.secret or webhook.headers):
            self._problems.add(
                ["webhook"],
                "secret and headers do not belong into an address, which proxies write into "
                "their logs; send a form or JSON",
            )
        return webhook

    def _of_json(self, values: list[Any]) -> Products:
        # One by one: the list of all that is wrong with all of them could fill the memory.
        products: list[tuple[Place, NewProduct]] = []
        for i, value in enumerate(values[: self._limits.max_products]):
            if self._problems.enough:
                break
            products.append(self._product(["products", i], value))
        return products

    def _product(self, place: Place, value: Any) -> tuple[Place, NewProduct]:
        try:
            product = Product.model_validate(value)
        except ValidationError as error:
            wrong = schema_validation.collect(Product, error, self._problems, below=place)
            product = _without(wrong, value)
        return place, NewProduct(product.serial_number, product.product_name, product.input_urls)

    def _check_expiry(self, instructions: Instructions) -> None:
        if self._keep_days and (instructions.expires_in_days or 0) > self._keep_days:
            self._problems.add(
                ["expiresInDays"],
                f"nothing is kept longer here than {self._keep_days:g} days; say that or less",
            )

    def _check_size(self, validated: Validated) -> bool:
        fits = True
        for count, most, what in (
            (validated.count, self._limits.max_products, "products"),
            (validated.total_images, self._limits.max_images, "images"),
        ):
            if count > most:
                fits = False
                self._problems.add(
                    ["products"],
                    f"{count} {what} are more than the {most} allowed in one request; split them "
                    "into several uploads",
                )
        return fits

    def _check_products(self, products: Products) -> None:
        for place, product in products:
            if self._problems.enough:
                return
            self._check_urls([*place, "inputUrls"], product.input_urls)

    def _check_urls(self, place: Place, urls: Sequence[str]) -> None:
        most = self._limits.max_urls_per_product
        if len(urls) > most:
            msg = f"{len(urls)} URLs are more than the {most} allowed for one product"
            self._problems.add(place, msg)
            return
        length = sum(map(len, urls))
        if length > _LONGEST_URLS:
            msg = f"have {length} characters together; {_LONGEST_URLS} are the most for one product"
            self._problems.add(place, msg)
            return
        for index, url in enumerate(urls):
            self._check_url([*place, index], url)

    def _check_url(self, place: Place, url: str) -> None:
        try:
            self._guard.parse(url)
        except ServiceError as error:
            self._problems.add(place, error.detail)


def _of_sheet(sheet: Sheet) -> Products:
    return [
        (["line", row.line], NewProduct(row.serial_number, row.product_name, row.urls))
        for row in sheet.rows
    ]


def _without(wrong: Container[str | int], value: Any) -> Product:
    """What is right of a product that is refused; the other fields are empty."""
    fields = value if isinstance(value, dict) and wrong else {}
    right = {
        name: fields[about.alias]
        for name, about in Product.model_fields.items()
        if about.alias in fields and about.alias not in wrong
    }
    return Product.model_construct(
        **{"serial_number": "", "product_name": "", "input_urls": [], **right}
    )
