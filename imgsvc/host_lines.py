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
    visit_s: float = FIRST_GUESS_S  # how long the last visit took
    spoken_for_until: float = 0.0


class HostLines:
    """The places and lines of all hosts.

    Args:
        places: how many may be with one host at once.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._lines: dict[str, _Line] = {}  # only of hosts that somebody is with

    def enter(self, host: str, now: float) -> float:
        """Take a place, to be given back with ``leave``; or learn when to ask again.

        Args:
            host: where to.
            now: the time in seconds, on any clock that does not go back.

        Returns:
            0 if there was a place and it is taken; else the seconds after which the line should
            have come to whoever asks.
        """
        line = self._lines.setdefault(host, _Line())
        if line.inside < self._places:
            line.inside += 1
            return 0.0
        line.spoken_for_until = max(line.spoken_for_until, now) + line.visit_s / self._places
        line.spoken_for_until = min(line.spoken_for_until, now + LONGEST_S)
        return line.spoken_for_until - now

    def leave(self, host: str, visit_s: float) -> None:
        """Give a place back after so many seconds."""
        line = self._lines[host]
        line.inside -= 1
        line.visit_s = max(visit_s, SHORTEST_S)
        if not line.inside:
            del self._lines[host]
