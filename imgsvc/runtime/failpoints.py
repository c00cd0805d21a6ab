"""Places where a test can have the process die: before and after every side effect.

Nothing happens unless ``[dev] failpoint`` names one of them, such as ``ledger.complete:after``.
Then the process ends as by ``kill -9`` the first time it gets there.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator


class Failpoints:
    """The failpoints of one process, of which at most one is armed.

    Args:
        armed: ``<name>:before`` or ``<name>:after``, or nothing.
    """

    def __init__(self, armed: str | None) -> None:
        self._armed = armed

    @contextlib.contextmanager
    def around(self, name: str) -> Iterator[None]:
        """Surround one side effect; ``after`` is reached only if it succeeded."""
        self._reach(f"{name}:before")
        yield
        self._reach(f"{name}:after")

    def _reach(self, place: str) -> None:
        if place == self._armed:
            os.kill(os.getpid(), signal.SIGKILL)


NO_FAILPOINTS = Failpoints(None)
