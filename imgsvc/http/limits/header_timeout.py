"""A time limit for the headers of a connection's first request.

aiohttp closes connections that stay idle after a response, but has no time limit for the first
request, which may never arrive, or byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from imgsvc.runtime import logs

_log = logs.get("http")


@contextlib.asynccontextmanager
async def cut_off(server: web.Server, limit_s: float) -> AsyncIterator[None]:
    """Close connections that are too slow, during the block.

    Args:
        server: of the application's runner; must not listen yet.
        limit_s: from connecting to the end of the first request's headers.
    """
    watch = _Watch(server, limit_s)
    watching = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class _Watch:
    """Looks from time to time which connections have had no request yet."""

    def __init__(self, server: web.Server, limit_s: float) -> None:
        self._server = server
        self._limit_s = limit_s
        self._since: dict[web.RequestHandler, float] = {}
        self._had_request: set[web.RequestHandler] = set()
        make = server.request_factory

        def made(message: Any, payload: Any, connection: web.RequestHandler, *rest: Any) -> Any:
            self._had_request.add(connection)
            return make(message, payload, connection, *rest)

        server.request_factory = made  # called when a request's headers are complete

    async def run(self) -> None:
        clock = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limit_s / 4)
            now, open_ones = clock.time(), self._server.connections
            self._had_request.intersection_update(open_ones)
            self._since = {one: self._since.get(one, now) for one in open_ones}
            late = [one for one, since in self._since.items() if self._is_late(one, now - since)]
            for one in late:
                one.force_close()
            if late:
                _log.info("http.cut_off", connections=len(late), reason="no request in time")

    def _is_late(self, connection: web.RequestHandler, age_s: float) -> bool:
        return connection not in self._had_request and age_s >= self._limit_s * 3 / 4
