"""One download's visits to origins, and the time that they took without waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable

from yarl import URL

from imgsvc.outbound.politeness import Politeness


class Trip:
    """The visits of one download.

    Args:
        politeness: towards the origins.
        begin: called when an origin has let it in.
    """

    def __init__(self, politeness: Politeness, begin: Callable[[], None] = lambda: None) -> None:
        self._politeness = politeness
        self._begin = begin
        self.seconds = 0.0

    @contextlib.asynccontextmanager
    async def visit(self, url: URL) -> AsyncIterator[bool]:
        """As of ``Politeness``."""
        async with self._politeness.visit(url) as closing:
            entered = time.monotonic()
            self._begin()
            try:
                yield closing
            finally:
                self.seconds += time.monotonic() - entered
