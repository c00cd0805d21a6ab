"""Room that calls of this replica were promised for images that the ledger does not count yet."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator


class Reserved:
    """Promises, each until its call is answered."""

    def __init__(self) -> None:
        self._images: dict[tuple[Hashable, str], int] = {}  # name and payer -> how many

    def besides(self, name: Hashable, payer: str) -> tuple[int, int]:
        """Images that were promised for something else: to all, and to one payer."""
        others = [(key[1], n) for key, n in self._images.items() if key != (name, payer)]
        return sum(n for _, n in others), sum(n for of, n in others if of == payer)

    @contextlib.contextmanager
    def hold(self, name: Hashable, payer: str, images: int) -> Iterator[None]:
        """Promise room within the block.

        Args:
            name: of what it is for; what is posted twice at a time needs it once.
            payer: who has it.
            images: how much.
        """
        self._images[name, payer] = images
        try:
            yield
        finally:
            self._images.pop((name, payer), None)
