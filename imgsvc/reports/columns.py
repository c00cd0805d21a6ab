"""The columns of a CSV: what they are called, and what else people call them."""

from __future__ import annotations

import re

SERIAL, NAME, INPUTS = "Serial Number", "Product Name", "Input Image URLs"
REQUIRED = (SERIAL, NAME, INPUTS)

RESULTS = (
    "Output Image URLs",
    "Status",
    "Error Codes",
    "Error Details",
    "Bytes In",
    "Bytes Out",
    "Formats",
    "Widths",
    "Heights",
    "Notes",
)
"""Of reports, in their order; passed over when one is posted again."""

SYNONYMS = {
    SERIAL: ("SKU", "ID", "Product ID", "Serial", "Serial No", "S. No.", "Sr. No."),
    NAME: ("Name", "Product", "Title", "Product Title"),
    INPUTS: (
        "Images",
        "Image URLs",
        "Image Links",
        "Input Images",
        "Input URLs",
        "Pictures",
        "Photos",
    ),
}

# In any script: "SKU*", "Image\u2011URL". But nothing that could not be read.
_BETWEEN_WORDS = re.compile(r"(?:[^\w\ufffd]|_)+")
_PLURAL = re.compile(r"(image|url|link|name|number|product|title|serial|sku|id|picture|photo)s")


def title(name: str) -> str | None:
    """The title of the column that somebody called ``name``, if there is one."""
    return _TITLES.get(_folded(name))


def known() -> str:
    """All of them, for somebody who called one by another name."""
    others = (f"{', '.join(names)} for {of}" for of, names in SYNONYMS.items())
    return f"{', '.join((*REQUIRED, *RESULTS))}; also {'; '.join(others)}"


def _folded(name: str) -> str:
    """A name as it is compared: without case, plural, blanks and what people put between words."""
    return _PLURAL.sub(r"\1", _BETWEEN_WORDS.sub("", name).casefold())


_TITLES = {_folded(each): each for each in (*REQUIRED, *RESULTS)} | {
    _folded(each): of for of, names in SYNONYMS.items() for each in names
}
