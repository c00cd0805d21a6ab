"""``imgsvc`` with a wall clock that can be set wrong: ``python -m tests.chaos.wandering FILE ...``.

FILE says by how many seconds; it may change at any time, as when an administrator or a time server
sets the clock. What counts seconds since some event, as the event loop does, goes on undisturbed:
so it is with a real clock.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import time_machine

from imgsvc.cli.main import main

_LOOK_EVERY_S = 0.02


def wander(file: Path) -> None:
    """Follow the file for ever."""
    clock = None
    wrong_by = 0.0
    while True:
        wanted = float(file.read_text() or 0) if file.exists() else 0.0
        if wanted != wrong_by:
            if clock is None:
                clock = time_machine.travel(time.time(), tick=True).start()
            clock.shift(wanted - wrong_by)
            wrong_by = wanted
        time.sleep(_LOOK_EVERY_S)


if __name__ == "__main__":
    threading.Thread(target=wander, args=[Path(sys.argv.pop(1))], daemon=True).start()
    main()
