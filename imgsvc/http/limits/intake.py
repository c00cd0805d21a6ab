"""How many bytes of bodies all calls together may hold: a body is small, a thousand are not."""

from __future__ import annotations

from aiohttp import web

from imgsvc.domain.errors import ErrorCode, ServiceError

_HELD = web.RequestKey("held", int)
_AGAIN_S = 5.0


class Intake:
    """Room for bodies.

    Args:
        total_bytes: of it.
    """

    def __init__(self, total_bytes: int) -> None:
        self._free_bytes = total_bytes

    def take(self, request: web.Request, amount_bytes: int) -> None:
        """Hold more bytes of a body until ``release``.

        Raises:
            ServiceError: OVERLOADED; waiting for room would be a way to block everybody.
        """
        if amount_bytes > self._free_bytes:
            raise ServiceError(ErrorCode.OVERLOADED, retry_after_s=_AGAIN_S)
        self._free_bytes -= amount_bytes
        request[_HELD] = request.get(_HELD, 0) + amount_bytes

    def release(self, request: web.Request) -> None:
        """The call is answered, and its body forgotten."""
        self._free_bytes += request.get(_HELD, 0)
