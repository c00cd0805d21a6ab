"""Where the pictures come from: a shop's web server, as the service sees it."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from imgsvc.demo.loopback import serving
from imgsvc.demo.samples import Sample


@asynccontextmanager
async def origin(samples: Iterable[Sample]) -> AsyncIterator[str]:
    """Serves samples by their names; gives the address under which they are."""
    files = {sample.name: sample.data for sample in samples if sample.data is not None}

    async def answer(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in files:
            raise web.HTTPNotFound
        # By the name alone, as web servers do: the text is announced as a JPEG.
        kind, _ = mimetypes.guess_type(name)
        return web.Response(body=files[name], content_type=kind or "application/octet-stream")

    async with serving(answer) as base:
        yield base
