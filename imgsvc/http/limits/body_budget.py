"""The memory that the bodies of all calls together may take: one is small, a thousand are not."""

from __future__ import annotations

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError

_HELD = web.RequestKey("held", int)
_RETRY_AFTER_S = 5.0


class BodyBudget:
    """Memory for bodies, held by each call until it is answered.

    Args:
        total_bytes: how much there is.
    """

    def __init__(self, total_bytes: int) -> None:
        self._free_bytes = total_bytes

    def take(self, request: web.Request, amount_bytes: int) -> None:
        """Hold more bytes for a call until ``release``.

        Raises:
            ServiceError: OVERLOADED. Nobody waits: slow senders could then block everybody.
        """
        if amount_bytes > self._free_bytes:
            raise ServiceError(ErrorCode.OVERLOADED, retry_after_s=_RETRY_AFTER_S)
        self._free_bytes -= amount_bytes
        request[_HELD] = request.get(_HELD, 0) + amount_bytes

    def release(self, request: web.Request) -> None:
        """Free what a call holds, because it is answered."""
        self._free_bytes += request.get(_HELD, 0)
