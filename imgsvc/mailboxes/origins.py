"""What replicas tell each other about origins, in Redis: shares of places, failures and rests.

All of it may be lost at any moment. Then nothing bad is known of an origin until it fails again,
and within seconds each replica has told how many connections it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imgsvc.domain.errors import ErrorCode
from imgsvc.mailboxes import keys
from imgsvc.mailboxes.scripts import Scripts
from imgsvc.runtime.settings import Fetch

SHARE_S = 5.0
"""For how long a share of places is held by a replica that does not ask again."""

_REMEMBERED_S = 600.0  # failures, after the last of them or after the rest that it led to


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica says about an origin.

    Attributes:
        open: connections that it has, idle ones included; None if it gives its share back.
        worked: something was fetched since the last report.
        wants: somebody may come; else only what is open is told.
    """

    open: int | None = 0
    worked: bool = False
    wants: bool = True


@dataclass(frozen=True, slots=True)
class Failure:
    """How an origin failed.

    Attributes:
        code: of the image that could not be fetched.
        asks: whether the origin asks to be left alone ...
        asked_s: ... and for how long, if it says so.
        worked: whether something was fetched since the last report.
    """

    code: ErrorCode
    asks: bool
    asked_s: float
    worked: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How an origin stands.

    Attributes:
        places: how many connections this replica may have to it.
        rest_s: for how long it is to be left alone.
        given_up: it was left alone so often that nobody waits for it; its last failure.
    """

    places: int
    rest_s: float = 0.0
    given_up: ErrorCode | None = None


class Origins:
    """The origins as all replicas see them.

    Args:
        scripts: the way to Redis.
        replica: the id of this process.
        settings: how many places an origin has, and when it is left alone.
    """

    def __init__(self, scripts: Scripts, replica: str, settings: Fetch) -> None:
        self._scripts = scripts
        self._replica = replica
        self._settings = settings

    async def share(self, reports: Mapping[str, Report]) -> dict[str, Standing]:
        """Report about some origins, and learn how they stand.

        Raises:
            ServiceError: Redis is away.
        """
        told: list[int] = []
        for report in reports.values():
            told += (
                -1 if report.open is None else report.open,
                int(report.worked),
                int(report.wants),
            )
        answers = await self._scripts.run(
            "share",
            [keys.origin(name) for name in reports],
            (self._replica, self._settings.per_host, round(SHARE_S * 1000), *told),
        )
        return {
            name: self._standing(*answer) for name, answer in zip(reports, answers, strict=True)
        }

    async def blame(self, name: str, failure: Failure) -> tuple[Standing, bool]:
        """Tell that an origin failed; how it stands now, and whether it begins to rest by this.

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
                int(failure.asks),
                round(failure.asked_s * 1000),
                fetch.failures,
                round(fetch.rest_s * 1000),
                round(fetch.longest_rest_s * 1000),
                round(_REMEMBERED_S * 1000),
            ),
        )
        return self._standing(0, rest_ms, rests, failure.code.name), bool(begins)

    def _standing(self, places: int, rest_ms: int, rests: int, code: str) -> Standing:
        given_up = rest_ms > 0 and rests > self._settings.rests
        return Standing(places, rest_ms / 1000, ErrorCode[code] if given_up else None)
