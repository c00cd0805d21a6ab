"""The tests run in the background, too: there a shell has SIGINT ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

CHILD = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_what_the_tests_start_can_be_interrupted() -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True
    )
    assert child.stdout == "True\n"


def test_and_so_it_can_if_they_run_in_the_background() -> None:
    inner = f"{Path(__file__)}::{test_what_the_tests_start_can_be_interrupted.__name__}"
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", inner],
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert run.returncode == 0, run.stdout
