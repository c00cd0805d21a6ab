"""The per-host limit: so many at once for each host, and a time to ask again for all others.

A host that hangs takes up its own limit and nobody else's. Whoever is over the limit is told when
to ask again: one after the other, a moment apart. So asking costs the same however many ask, and
what becomes free is taken at once, however long it was held before. Nothing here waits or reads a
clock: the caller passes the time in.
"""

from __future__ import annotations

from dataclasses import dataclass

APART_S = 0.02
"""How long after one of those who wait the next one asks again."""

LONGEST_S = 60.0


@dataclass(slots=True)
class _Host:
    inside: int = 0
    asked_until: float = 0.0  # when the last of those who wait asks again


class HostLimits:
    """How many are with each host."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}  # only those that somebody is with

    def inside(self, host: str) -> int:
        """How many are with a host."""
        found = self._hosts.get(host)
        return found.inside if found else 0

    def enter(self, host: str, limit: int) -> bool:
        """Start a visit to a host, to end with ``leave``; False if the limit is reached.

        Args:
            host: where to.
            limit: how many may be with it at once.
        """
        if self.inside(host) >= limit:
            return False
        self._hosts.setdefault(host, _Host()).inside += 1
        return True

    def ask_again_s(self, host: str, now: float) -> float:
        """Seconds after which somebody who was refused is to ask again.

        Args:
            host: one that somebody is with.
            now: the time in seconds, on any clock that does not go back.
        """
        found = self._hosts[host]
        found.asked_until = min(max(found.asked_until, now) + APART_S, now + LONGEST_S)
        return found.asked_until - now

    def leave(self, host: str) -> None:
        """End a visit to a host."""
        found = self._hosts[host]
        found.inside -= 1
        if not found.inside:
            del self._hosts[host]
