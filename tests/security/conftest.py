"""Clients with settings of a test's own, and name servers that lie."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from imgsvc.imaging.identify import sniff
from imgsvc.outbound.client import Outbound
from imgsvc.runtime.settings import Fetch, Net
from tests.name_server import NameServer

Open = Callable[..., Outbound]


@pytest.fixture
async def name_server() -> AsyncIterator[NameServer]:
    """The name server of all clients; it knows no name until told otherwise."""
    async with NameServer() as running:
        yield running


@pytest.fixture
async def outbound(name_server: NameServer) -> AsyncIterator[Open]:
    """Makes clients of settings of ``[net]``, and of ``[fetch]`` by name."""
    async with contextlib.AsyncExitStack() as stack:

        def make(net: dict[str, Any] | None = None, **fetch: Any) -> Outbound:
            told = {"nameservers": [name_server.address], **(net or {})}
            made = Outbound(Net.model_validate(told), Fetch(**fetch), sniff)
            stack.push_async_callback(made.close)
            return made

        yield make
