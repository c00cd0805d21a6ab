"""What replicas tell each other about an origin: how they use it, how it failed, how it stands."""

from __future__ import annotations

from dataclasses import dataclass

from imgsvc.domain.errors import ErrorCode

SHARE_S = 5.0
"""For how long a replica that does not ask again keeps its share of the connections."""


@dataclass(frozen=True, slots=True)
class OriginUse:
    """How a replica uses an origin.

    Attributes:
        open: connections that it has, idle ones included; None if it gives its share back.
        worked: something was fetched since the last time.
        wants: it wants a share of the connections; else it only tells how many are open.
    """

    open: int | None = 0
    worked: bool = False
    wants: bool = True


@dataclass(frozen=True, slots=True)
class OriginFailure:
    """How an origin failed.

    Attributes:
        code: of the image that could not be fetched.
        asked_s: for how long the origin asks to be left alone; 0 if it does not say for how long,
            None if it does not ask.
        worked: whether something was fetched since the last time.
    """

    code: ErrorCode
    asked_s: float | None
    worked: bool


@dataclass(frozen=True, slots=True)
class OriginStanding:
    """How an origin stands.

    Attributes:
        connections: how many this replica may have to it.
        rest_s: for how long it is to be left alone.
        given_up: its last failure, if it was left alone so often that nobody waits for it.
    """

    connections: int
    rest_s: float = 0.0
    given_up: ErrorCode | None = None
