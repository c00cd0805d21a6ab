"""Origins as all replicas see them, in Redis: shares of connections, failures and rests.

All of it may be lost at any moment. Then nothing bad is known of an origin until it fails again,
and within seconds each replica has told how many connections it has.
"""

from __future__ import annotations

from collections.abc import Mapping

from imgsvc.domain.errors import ErrorCode
from imgsvc.domain.origins import SHARE_S, OriginFailure, OriginStanding, OriginUse
from imgsvc.mailboxes import keys
from imgsvc.mailboxes.scripts import Scripts
from imgsvc.runtime.settings import Fetch

_REMEMBERED_S = 600.0  # failures, after the last of them or after the rest that it led to


class Origins:
    """The origins that replicas share.

    Args:
        scripts: the way to Redis.
        replica: the id of this process.
        settings: how many connections an origin has, and when it is left alone.
    """

    def __init__(self, scripts: Scripts, replica: str, settings: Fetch) -> None:
        self._scripts = scripts
        self._replica = replica
        self._settings = settings

    async def share(self, uses: Mapping[str, OriginUse]) -> dict[str, OriginStanding]:
        """Tell how this replica uses some origins, and learn how they stand.

        Raises:
            ServiceError: Redis is away.
        """
        arguments: list[int] = []
        for use in uses.values():
            arguments += (-1 if use.open is None else use.open, int(use.worked), int(use.wants))
        answers = await self._scripts.run(
            "share",
            [keys.origin(name) for name in uses],
            (self._replica, self._settings.per_host, round(SHARE_S * 1000), *arguments),
        )
        return {name: self._standing(*answer) for name, answer in zip(uses, answers, strict=True)}

    async def blame(self, name: str, failure: OriginFailure) -> tuple[OriginStanding, bool]:
        """Tell that an origin failed.

        Returns:
            How it stands now, and whether a rest begins with this failure.

        Raises:
            ServiceError: Redis is away.
        """
        fetch = self._settings
        rest_ms, rests, begins = await self._scripts.run(
            "blame",
            (keys.origin(name),),
            (
                failure.code.name,
                int(failure.worked),
                -1 if failure.asked_s is None else round(failure.asked_s * 1000),
                fetch.failures,
                round(fetch.rest_s * 1000),
                round(fetch.longest_rest_s * 1000),
                round(_REMEMBERED_S * 1000),
            ),
        )
        return self._standing(0, rest_ms, rests, failure.code.name), bool(begins)

    def _standing(self, connections: int, rest_ms: int, rests: int, code: str) -> OriginStanding:
        given_up = rest_ms > 0 and rests > self._settings.rests
        return OriginStanding(connections, rest_ms / 1000, ErrorCode[code] if given_up else None)
