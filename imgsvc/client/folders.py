"""Names of folders for products, whatever their serial numbers hold."""

from __future__ import annotations

import unicodedata

_NAME_BYTES = 100
_UNFIT = frozenset('/\\:*?"<>|')  # in names, somewhere


class Folders:
    """A folder's name for each product, whatever its serial number says.

    Names depend on the products and their order alone, so that a download can be resumed.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, serial_number: str, product: int) -> str:
        """The next product's.

        Args:
            serial_number: made fit for a file system; two may become the same, or be.
            product: its number, which then tells them apart.
        """
        text = unicodedata.normalize("NFC", serial_number)
        fit = "".join("_" if c in _UNFIT or not c.isprintable() else c for c in text)
        fit = fit.encode()[:_NAME_BYTES].decode(errors="ignore").strip(" .") or "_"
        while fit.casefold() in self._taken:
            fit = f"{fit} ({product + 1})"
        self._taken.add(fit.casefold())
        return fit
