"""Room that calls of this replica were promised for images that the ledger does not count yet."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator


class Promises:
    """How many images were promised room for what, and who pays for it."""

    def __init__(self, images: dict[tuple[Hashable, str], int]) -> None:
        self.images = images  # by name and tenant

    def besides(self, name: Hashable, quota_tenant: str) -> tuple[int, int]:
        """Images that were promised for something else: to all, and to one tenant."""
        others = [(key[1], n) for key, n in self.images.items() if key != (name, quota_tenant)]
        return sum(n for _, n in others), sum(n for of, n in others if of == quota_tenant)


class Reserved:
    """Promises, each until its call is answered."""

    def __init__(self) -> None:
        self._images: dict[tuple[Hashable, str], int] = {}
        self._watching: set[Promises] = set()

    @contextlib.contextmanager
    def watched(self) -> Iterator[Promises]:
        """All promises of the time that the block takes, also those that come and go within it.

        The ledger, asked meanwhile, may or may not have counted what they were for.
        """
        seen = Promises(dict(self._images))
        self._watching.add(seen)
        try:
            yield seen
        finally:
            self._watching.remove(seen)

    @contextlib.contextmanager
    def hold(self, name: Hashable, quota_tenant: str, images: int) -> Iterator[None]:
        """Promise room within the block.

        Args:
            name: of what it is for; what is posted twice at a time needs it once.
            quota_tenant: who has it.
            images: how much.
        """
        for promised in (self._images, *(seen.images for seen in self._watching)):
            promised[name, quota_tenant] = images
        try:
            yield
        finally:
            self._images.pop((name, quota_tenant), None)
