"""Commands that do not run the service start without loading it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"aiohttp", "redis", "pymongo", "motor", "google.cloud", "PIL", "imgsvc.app"}


def loaded_by(module: str, *more: str) -> set[str]:
    """What of the heavy packages a module loads, in a process of its own."""
    program = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return (HEAVY | set(more)).intersection(ran.stdout.split())


def test_the_operators_commands_load_no_server_and_no_driver() -> None:
    assert loaded_by("imgsvc.cli.main") == set()


def test_the_clients_commands_load_pydantic_neither() -> None:
    assert loaded_by("imgsvc.client", "pydantic") == set()
