"""Numbers and strangers' words as a terminal can show them."""

from __future__ import annotations

from rich import filesize
from rich.cells import cell_len, set_cell_size


def size(count: float | None) -> str:
    """Bytes, as in ``11.7 MB``; nothing for None."""
    return "" if count is None else filesize.decimal(round(count))


def percent(share: float | None) -> str:
    """A share of 1, as in ``33 %``; nothing for None."""
    return "" if share is None else f"{100 * share:.0f} %"


def duration(ms: float) -> str:
    """Milliseconds, as in ``35 ms`` or ``2.1 s``."""
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"  # noqa: PLR2004


def saved(before: float, after: float) -> float | None:
    """How much smaller, as a share of 1; None if there was nothing."""
    return 1 - after / before if before else None


def count(number: int, what: str) -> str:
    """So many of something, as in ``1 image`` or ``1,200 images``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def plain(text: str) -> str:
    """What others wrote, with nothing in it that steers a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def cell(text: str, width: int) -> str:
    """The same, cut or filled up to a width."""
    text = plain(text)
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width)
