"""The call for the savings report of a request."""

from __future__ import annotations

import asyncio

from aiohttp import web

from imgsvc.domain.model import OPEN_REQUEST
from imgsvc.http import keys, responses
from imgsvc.http.requests import tenancy
from imgsvc.ledger import Document
from imgsvc.reports.savings import Savings

_BATCH = 2000  # images, roughly; threads that are busy with more would slow the event loop down


async def savings(request: web.Request) -> web.Response:
    """What was saved, where it came from and how long it took, also while the request runs."""
    found = await tenancy.status(request)
    sums = Savings()
    batch: list[Document] = []
    products = max(2, _BATCH * found["totalProducts"] // found["totalImages"])
    async for images in request.app[keys.LEDGER].requests.image_ends(found["requestId"], products):
        batch += images
        if len(batch) >= _BATCH:
            await asyncio.to_thread(sums.add, batch)
            batch = []
    await asyncio.to_thread(sums.add, batch)
    summary = await asyncio.to_thread(sums.summary)
    return responses.json(
        {
            "requestId": found["requestId"],
            "status": found["status"],
            "partial": found["status"] in OPEN_REQUEST,
            **summary,
        }
    )
