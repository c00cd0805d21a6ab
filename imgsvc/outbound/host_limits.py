"""Who may go next where only so many go at once: a few places for each host, and a line behind.

A host that hangs fills its own places and nobody else's. Whoever finds them all taken is told
when to come back: one after the other, a moment apart, so that asking costs the same however
many ask, and a place that becomes free is taken at once, however long it was held before.
Nothing here waits or reads a clock: the caller passes the time in.
"""

from __future__ import annotations

from dataclasses import dataclass

APART_S = 0.02
"""How long after one of those who wait the next one asks again."""

LONGEST_S = 60.0


@dataclass(slots=True)
class _Line:
    inside: int = 0
    asked_until: float = 0.0  # when the last of those who wait asks again


class HostLines:
    """The places and lines of all hosts."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}  # only of hosts that somebody is with

    def inside(self, host: str) -> int:
        """How many are with a host."""
        line = self._lines.get(host)
        return line.inside if line else 0

    def enter(self, host: str, places: int) -> bool:
        """Take a place, to be given back with ``leave``; whether there was one.

        Args:
            host: where to.
            places: how many may be with it at once.
        """
        if self.inside(host) >= places:
            return False
        self._lines.setdefault(host, _Line()).inside += 1
        return True

    def ask_again_s(self, host: str, now: float) -> float:
        """Seconds after which somebody who found no place is to ask again.

        Args:
            host: that somebody is with.
            now: the time in seconds, on any clock that does not go back.
        """
        line = self._lines[host]
        line.asked_until = min(max(line.asked_until, now) + APART_S, now + LONGEST_S)
        return line.asked_until - now

    def leave(self, host: str) -> None:
        """Give a place back."""
        line = self._lines[host]
        line.inside -= 1
        if not line.inside:
            del self._lines[host]
