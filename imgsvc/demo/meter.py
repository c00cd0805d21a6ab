"""What a program costs: the CPU and memory of all its processes, from Linux' /proc."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

_PROC = Path("/proc")
_EVERY_S = 0.05

# Fields after the name in /proc/PID/stat, which begin with the third; see proc(5).
_SESSION, _UTIME, _STIME, _RSS = 3, 11, 12, 21


class Meter:
    """The sum over all processes of one session, of whatever descent.

    Where there is no /proc, nothing is measured and both numbers stay None.
    """

    def __init__(self) -> None:
        self._ticks: dict[int, int] = {}
        self.peak_rss_bytes: int | None = None

    @property
    def cpu_s(self) -> float | None:
        """Seconds of CPU used so far, by processes that have ended too."""
        if not self._ticks:
            return None
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    async def run(self, session: int) -> None:
        """Samples until cancelled.

        Args:
            session: the id of the session, which is the id of the process that began it. That
                process itself is not counted.
        """
        while True:
            self._sample(session)
            await asyncio.sleep(_EVERY_S)

    def _sample(self, session: int) -> None:
        pages = 0
        for stat in _PROC.glob("[0-9]*/stat"):
            pid = int(stat.parent.name)
            try:
                # The name before may hold anything, blanks and brackets too.
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[_SESSION]) == session != pid:
                # The last value of each, so that one which ends still counts.
                self._ticks[pid] = int(fields[_UTIME]) + int(fields[_STIME])
                pages += int(fields[_RSS])
        if pages:
            rss_bytes = pages * os.sysconf("SC_PAGE_SIZE")
            self.peak_rss_bytes = max(rss_bytes, self.peak_rss_bytes or 0)
