"""Room in the quotas that calls of this replica hold until the ledger counts their images."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator


class SeenReservations:
    """The reservations that were seen while somebody counted."""

    def __init__(self, images: dict[tuple[Hashable, str], int]) -> None:
        self.images = images  # by name and tenant

    def besides(self, name: Hashable, quota_tenant: str) -> tuple[int, int]:
        """Images reserved for anything else: in all, and by one tenant."""
        others = [(key[1], n) for key, n in self.images.items() if key != (name, quota_tenant)]
        return sum(n for _, n in others), sum(n for of, n in others if of == quota_tenant)


class Reservations:
    """Reserves room for images, each time until the call is answered."""

    def __init__(self) -> None:
        self._images: dict[tuple[Hashable, str], int] = {}
        self._observers: set[SeenReservations] = set()

    @contextlib.contextmanager
    def observe(self) -> Iterator[SeenReservations]:
        """All reservations during the block, also those that begin and end within it.

        The ledger, asked meanwhile, may or may not have counted their images.
        """
        seen = SeenReservations(dict(self._images))
        self._observers.add(seen)
        try:
            yield seen
        finally:
            self._observers.remove(seen)

    @contextlib.contextmanager
    def hold(self, name: Hashable, quota_tenant: str, images: int) -> Iterator[None]:
        """Reserve room during the block.

        Args:
            name: of what it is for; an upload that is posted twice at a time needs room once.
            quota_tenant: whose quota it takes.
            images: how many.
        """
        for reserved in (self._images, *(seen.images for seen in self._observers)):
            reserved[name, quota_tenant] = images
        try:
            yield
        finally:
            self._images.pop((name, quota_tenant), None)
