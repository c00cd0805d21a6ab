"""Fixtures of the HTTP tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp import web

from tests.photos import photo


class Hold:
    """An origin's handler that answers only once it is released."""

    def __init__(self) -> None:
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let it answer."""
        self._released.set()

    async def handler(self, _: web.Request) -> web.Response:
        """Wait, then serve a photograph."""
        await self._released.wait()
        return web.Response(body=photo("rocket.jpg"))


@pytest.fixture
def hold() -> Iterator[Hold]:
    """A held answer, released at the end in any case."""
    made = Hold()
    yield made
    made.release()
