"""The calls that a client of the service makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp

from imgsvc.demo.samples import Product
from imgsvc.embedded.errors import EmbeddedError

_FINISHED_S = 120.0
_POLL_S = 0.1
_PAGE = 1000

Json = dict[str, Any]


class Client:
    """What a client of the service can do.

    Args:
        session: made for the service's address.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def is_ready(self) -> bool:
        """Whether ``/readyz`` says so."""
        try:
            async with self._session.get("/readyz") as response:
                return response.ok
        except aiohttp.ClientError:
            return False

    async def upload(self, products: Iterable[Product], origin: str, webhook_url: str) -> str:
        """Posts products whose images are at an origin; returns the id of the request."""
        body = {
            "webhookUrl": webhook_url,
            "products": [
                {
                    "serialNumber": product.serial_number,
                    "productName": product.name,
                    "inputUrls": [f"{origin}/{sample.name}" for sample in product.samples],
                }
                for product in products
            ],
        }
        async with self._session.post("/api/upload", json=body, raise_for_status=True) as response:
            return str((await response.json())["requestId"])

    async def follow(self, request_id: str) -> AsyncIterator[Json]:
        """The status object again and again, until the request is finished and announced.

        Raises:
            EmbeddedError: that takes too long.
        """
        deadline = time.monotonic() + _FINISHED_S
        while time.monotonic() < deadline:
            status = await self._json(f"/status/{request_id}")
            yield status
            if status["webhook"]["status"] != "PENDING":
                return
            await asyncio.sleep(_POLL_S)
        raise EmbeddedError(f"The request was not finished and announced within {_FINISHED_S:g} s.")

    async def images(self, request_id: str) -> list[Json]:
        """All images of a request, in the order in which they were posted."""
        page = await self._json(f"/api/requests/{request_id}/images?limit={_PAGE}")
        images: list[Json] = page["images"]
        return images

    async def report(self, request_id: str) -> str:
        """The report as CSV."""
        async with self._session.get(f"/download/{request_id}", raise_for_status=True) as response:
            return await response.text()

    async def result(self, url: str | None) -> bytes | None:
        """What is at an ``outputUrl``; None if there is none or it cannot be had."""
        if url is None:
            return None
        try:
            async with self._session.get(url) as response:
                return await response.read() if response.ok else None
        except aiohttp.ClientError:
            return None

    async def _json(self, path: str) -> Json:
        async with self._session.get(path, raise_for_status=True) as response:
            found: Json = await response.json()
            return found
