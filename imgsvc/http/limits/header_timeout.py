"""Connections whose first request does not arrive, or only byte by byte, are closed.

aiohttp closes a connection that is idle after an answer, half a request or not; for the first
request it has no time limit of its own.
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
    """Watch a server that does not listen yet, until the block is left.

    Args:
        server: of the application's runner.
        limit_s: how long a client may take from connecting to the end of its first head.
    """
    watch = _Watch(server, limit_s)
    watching = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class _Watch:
    def __init__(self, server: web.Server, limit_s: float) -> None:
        self._server = server
        self._limit_s = limit_s
        self._since: dict[web.RequestHandler, float] = {}
        self._spoken: set[web.RequestHandler] = set()
        make = server.request_factory

        def made(message: Any, payload: Any, connection: web.RequestHandler, *rest: Any) -> Any:
            self._spoken.add(connection)
            return make(message, payload, connection, *rest)

        server.request_factory = made  # called with each head that is complete

    async def run(self) -> None:
        clock = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limit_s / 4)
            now, open_ones = clock.time(), self._server.connections
            self._spoken.intersection_update(open_ones)
            self._since = {one: self._since.get(one, now) for one in open_ones}
            late = [one for one, since in self._since.items() if self._is_late(one, now - since)]
            for one in late:
                one.force_close()
            if late:
                _log.info("http.cut_off", connections=len(late), reason="no request in time")

    def _is_late(self, connection: web.RequestHandler, age_s: float) -> bool:
        return connection not in self._spoken and age_s >= self._limit_s * 3 / 4
