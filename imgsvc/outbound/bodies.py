"""Reads the file in one answer: decoded, within limits, and refused if there is no file in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import aiohttp

from imgsvc.domain.backoff import parse_retry_after
from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.outbound import bot_walls
from imgsvc.outbound.content_codings import Sniff, coding, decoded
from imgsvc.runtime.settings import Fetch

_CHUNK = 256 * 1024
# 203 is a 200 that a proxy has changed; no other status comes with a whole picture.
_WHOLE = frozenset({200, 203})
# Statuses that speak of the moment rather than of the file.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_ASKING = frozenset({429, 503})
_REFUSAL_S = 2.0  # for reading the body of a refusal


class StatusError(ServiceError):
    """An origin answered, but not with a file.

    Attributes:
        asks_for_time: whether it asks to come back later: by its status, by ``Retry-After``, or by
            a bot wall.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, wall: bot_walls.Wall | None, user_agent: str
    ) -> None:
        asks = bool(wall and wall.asks)
        wait_s = None
        if asks or response.status in _PASSING:
            wait_s = (
                parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC)) or 0.0
            )
        self.asks_for_time = asks or response.status in _ASKING or bool(wait_s)
        code, detail = ErrorCode.FETCH_STATUS, f"The origin answered with status {response.status}."
        if wall:
            code = ErrorCode.FETCH_BLOCKED
            detail = (
                f"{response.url.host} answered {response.status} with a page or a challenge for "
                f"robots, not with the image ({wall.evidence}). Ask its operator to let requests "
                f'through whose User-Agent is "{user_agent}".'
            )
        super().__init__(code, detail, retry_after_s=wait_s)


class BodyReader:
    """Reads the bodies of answers.

    Args:
        limits: of a download.
        user_agent: how the service calls itself.
        sniff: tells an image by its first bytes.
    """

    def __init__(self, limits: Fetch, user_agent: str, sniff: Sniff) -> None:
        self._limits = limits
        self._sniff = sniff
        self._user_agent = user_agent

    async def read(
        self,
        response: aiohttp.ClientResponse,
        write: Callable[[bytes], Awaitable[None]],
        limit_bytes: int,
    ) -> int:
        """Write a file in pieces; returns how many bytes it has.

        Raises:
            ServiceError: with the code of an image that cannot be fetched.
        """
        if response.status not in _WHOLE:
            start = await self._start_of_refusal(response)
            wall = bot_walls.find(response.status, response.headers, start)
            raise StatusError(response, wall, self._user_agent)
        too_large = ServiceError(
            ErrorCode.TOO_LARGE, f"The file is larger than {limit_bytes} bytes."
        )
        # A claim can only refuse: what is let in is counted.
        if (response.content_length or 0) > limit_bytes:
            raise too_large
        pieces = self._decoded(response)
        piece = await _start_of(pieces)
        if wall := bot_walls.find(response.status, response.headers, piece):
            raise StatusError(response, wall, self._user_agent)
        total = 0
        while piece:
            total += len(piece)
            if total > limit_bytes:
                raise too_large
            await write(piece)
            piece = await anext(pieces, b"")
        return total

    async def _start_of_refusal(self, response: aiohttp.ClientResponse) -> bytes:
        """As much of a refusal as it takes to know a wall by; errors in it do not matter."""
        start = b""
        if response.status in bot_walls.USUAL:
            with contextlib.suppress(ServiceError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(_REFUSAL_S):
                    async for piece in self._decoded(response):
                        start += piece
                        if len(start) >= bot_walls.LOOKED_AT:
                            break
        return start

    def _decoded(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        name = coding(response.headers.getall("Content-Encoding", []))
        pieces = self._pieces(response.content)
        return decoded(pieces, name, self._sniff) if name else pieces

    async def _pieces(self, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        """What arrives; ends with an error once it arrives too slowly or not at all.

        Within each span of ``slow_s`` there must come as much as the lowest speed makes of it.
        The time in which a piece is written does not count.
        """
        span_s = self._limits.slow_s
        quota = self._limits.min_bytes_per_s * span_s
        clock = asyncio.get_running_loop().time
        left_s, owed = span_s, quota
        while True:
            asked = clock()
            try:
                async with asyncio.timeout(left_s):
                    piece = await content.read(_CHUNK)
            except TimeoutError:
                raise
            except (aiohttp.ClientError, OSError):
                raise ServiceError(ErrorCode.FETCH_TRUNCATED) from None
            if not piece:
                if content.exception():
                    raise ServiceError(ErrorCode.FETCH_TRUNCATED)
                return
            left_s -= clock() - asked
            owed -= len(piece)
            if owed <= 0:
                left_s, owed = span_s, quota
            yield piece


async def _start_of(pieces: AsyncIterator[bytes]) -> bytes:
    """The first piece of a file; of a page as much as it takes to know a wall by."""
    start = b""
    async for piece in pieces:
        start += piece
        if not bot_walls.is_page(start) or len(start) >= bot_walls.LOOKED_AT:
            break
    return start
