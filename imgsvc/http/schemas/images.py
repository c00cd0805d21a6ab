"""The images of a request."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imgsvc.domain.model import ImageStatus, SerialNumber, Shape
from imgsvc.http.schemas.fields import Cursor


class ImageError(Shape):
    """Why an image failed."""

    code: str
    detail: str


class Image(Shape):
    """One image and what became of it."""

    serial_number: SerialNumber
    product_name: str
    product: int
    index: int
    input_url: str
    output_url: str | None
    status: ImageStatus
    error: ImageError | None
    bytes_in: int | None
    bytes_out: int | None
    format: str | None
    width: int | None
    height: int | None


class ImagesPage(Shape):
    """Images in input order."""

    images: list[Image]
    next_cursor: str | None


class ImagesQuery(Shape):
    """Which images."""

    cursor: Cursor = None
    limit: Annotated[int, Field(ge=1)] = 100
    status: ImageStatus | None = None
