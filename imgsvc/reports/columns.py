"""The columns of a CSV: their titles, and what else people call them."""

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
"""The columns that reports add, in order; ignored when a report is posted again."""

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

# Punctuation of any script: "SKU*", "Image\u2011URL". But not the mark of an unreadable character.
_BETWEEN_WORDS = re.compile(r"(?:[^\w\ufffd]|_)+")
_PLURAL = re.compile(r"(image|url|link|name|number|product|title|serial|sku|id|picture|photo)s")


def title(name: str) -> str | None:
    """The title of the column that ``name`` stands for, or None."""
    return _TITLES.get(_folded(name))


def known() -> str:
    """All known names, to be shown to somebody who used another one."""
    others = (f"{', '.join(names)} for {of}" for of, names in SYNONYMS.items())
    return f"{', '.join((*REQUIRED, *RESULTS))}; also {'; '.join(others)}"


def _folded(name: str) -> str:
    """A name for comparison: without case, plural, blanks and punctuation between words."""
    return _PLURAL.sub(r"\1", _BETWEEN_WORDS.sub("", name).casefold())


_TITLES = {_folded(each): each for each in (*REQUIRED, *RESULTS)} | {
    _folded(each): of for of, names in SYNONYMS.items() for each in names
}
