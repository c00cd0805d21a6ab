"""Who may go next where only so many go at once: a few places for each host, and a line behind.

A host that hangs fills its own places and nobody else's. Whoever finds them all taken is told
when to come back, by how long the host took of late, so that a slow host is asked for rarely and
a quick one is kept busy. Nothing here waits or reads a clock: the caller passes the time in.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_GUESS_S = 0.05
SHORTEST_S = 0.001  # so that a wait is never none
LONGEST_S = 60.0  # so that a host that recovers is noticed


@dataclass(slots=True)
class _Line:
    inside: int = 0
    entered: float = 0.0  # when the last of them did
    visit_s: float = FIRST_GUESS_S  # how long the last visit took
    spoken_for_until: float = 0.0


class HostLines:
    """The places and lines of all hosts."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}  # only of hosts that somebody is with

    def inside(self, host: str) -> int:
        """How many are with a host."""
        line = self._lines.get(host)
        return line.inside if line else 0

    def enter(self, host: str, places: int, now: float) -> float:
        """Take a place, to be given back with ``leave``; or learn when to ask again.

        Args:
            host: where to.
            places: how many may be with it at once, from 1.
            now: the time in seconds, on any clock that does not go back.

        Returns:
            0 if there was a place and it is taken; else the seconds after which the line should
            have come to whoever asks.
        """
        line = self._lines.setdefault(host, _Line())
        if line.inside < places:
            line.inside += 1
            line.entered = now
            return 0.0
        visit_s = max(line.visit_s, now - line.entered)  # all who are inside take that long
        line.spoken_for_until = max(line.spoken_for_until, now) + visit_s / places
        line.spoken_for_until = min(line.spoken_for_until, now + LONGEST_S)
        return min(line.spoken_for_until - now, LONGEST_S)

    def leave(self, host: str, visit_s: float) -> None:
        """Give a place back after so many seconds."""
        line = self._lines[host]
        line.inside -= 1
        line.visit_s = max(visit_s, SHORTEST_S)
        if not line.inside:
            del self._lines[host]
