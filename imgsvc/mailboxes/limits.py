"""What a client may have in a period, counted for all replicas together."""

from __future__ import annotations

from typing import NamedTuple

from imgsvc.mailboxes import keys
from imgsvc.mailboxes.scripts import Scripts


class Taken(NamedTuple):
    """What came of taking from a limit."""

    admitted: bool
    remaining: int  # of what is limited
    reset_s: float  # until all of it is there again
    wait_s: float  # until as much can be taken; 0 if admitted


class Limits:
    """The limits of all clients.

    Args:
        scripts: the way to Redis.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def take(
        self, bucket: str, limit: int, period_s: float, cost: int = 1, *, owed: bool = False
    ) -> Taken:
        """Take from what a client may have in a period, if that much is left.

        Args:
            bucket: what is limited, such as ``upload:<client>``.
            limit: how much is allowed in the period.
            period_s: the period.
            cost: how much is taken; negative gives back, 0 asks whether anything is owed.
            owed: take it even if it is not left; the next one waits for what is missing.
        """
        admitted, remaining, reset_ms, wait_ms = await self._scripts.run(
            "take_token",
            (keys.limit(bucket),),
            (limit, int(period_s * 1000), cost, int(owed)),
        )
        return Taken(bool(admitted), int(remaining), int(reset_ms) / 1000, int(wait_ms) / 1000)
