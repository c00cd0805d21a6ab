"""Clients with settings of a test's own, and name servers that lie."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from imgsvc.net import Outbound
from imgsvc.settings import Fetch, Net

Answers = Callable[[str], Iterable[str]]
Open = Callable[..., Outbound]


@pytest.fixture
async def outbound() -> AsyncIterator[Open]:
    """Makes clients of settings of ``[net]``, and of ``[fetch]`` by name."""
    async with contextlib.AsyncExitStack() as stack:

        def make(net: dict[str, Any] | None = None, **fetch: Any) -> Outbound:
            made = Outbound(Net.model_validate(net or {}), Fetch(**fetch))
            stack.push_async_callback(made.close)
            return made

        yield make


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], list[str]]:
    """Have names resolve to what a function says; returns the list of names asked for."""

    def install(answers: Answers) -> list[str]:
        asked: list[str] = []

        def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
            asked.append(host)
            return [_info(address, port) for address in answers(host)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return asked

    return install


def _info(address: str, port: int) -> tuple[Any, ...]:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)
