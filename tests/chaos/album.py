"""Small pictures, each unlike the others: real photographs, made smaller."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageOps

from tests.photos import photo, photo_names

_TEXT = b"This is a text, whatever its name says.\n"


@dataclass(frozen=True)
class Picture:
    """One file at the origin, and what is to become of it.

    Args:
        data: its bytes; None if the origin does not have it.
        error: the code it must fail with; None if it is a good picture.
        number: tells those apart that the origin does not have.
    """

    data: bytes | None
    error: str | None = None
    number: int = 0


MISSING = Picture(None, "FETCH_STATUS")  # each has an address of its own, unless it is numbered
TEXT = Picture(_TEXT, "NOT_AN_IMAGE")


@functools.cache
def picture(number: int) -> Picture:
    """A good picture; no two numbers below 10,000 give the same photograph in the same size."""
    names = photo_names()
    name, size = names[number % len(names)], number // len(names)
    return Picture(_smaller(name, 96 + 2 * (size % 32), 96 + 2 * (size // 32)))


@functools.cache
def cut_short() -> Picture:
    """A picture whose second half never reached the origin."""
    data = picture(0).data
    assert data is not None
    return Picture(data[: len(data) // 2], "IMAGE_CORRUPT")


def _smaller(name: str, width: int, height: int) -> bytes:
    image = ImageOps.fit(_opened(name), (width, height))
    out = BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()


@functools.cache
def _opened(name: str) -> Image.Image:
    image = Image.open(BytesIO(photo(name))).convert("RGB")
    image.thumbnail((512, 512))
    return image
