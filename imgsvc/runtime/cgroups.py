"""What the control groups of this process leave to it, and settings that keep within.

A container sees all cores and all memory of its machine. What it may use of them stands in files of
its control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html, and for version 1
https://docs.kernel.org/scheduler/sched-bwc.html and admin-guide/cgroup-v1/memory.html. Each group
above may allow less than the one below it, so the least holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imgsvc.runtime.settings import Settings

# Shares of the memory there is. The rest is for the process itself, what its workers hold between
# two images, and the files in hand.
_CODEC_SHARE = 0.5
_BODIES_SHARE = 0.125

_NO_LIMIT_BYTES = 1 << 60  # version 1 has a number for "none", which depends on the page size
_MOST_BYTES = 4096  # of such a file


@dataclass(frozen=True)
class Limits:
    """What may be used; None where nothing bounds it.

    Attributes:
        cpus: cores, as a share of time: 1.5 is one and a half.
        memory_bytes: of all processes together.
    """

    cpus: float | None = None
    memory_bytes: int | None = None


def read(root: Path = Path("/")) -> Limits:
    """The limits of this process.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    cpus: list[float] = []
    memory: list[int] = []
    for controllers, group in _memberships(root):
        for folder in _folders(root / "sys/fs/cgroup", controllers, group):
            if "cpu" in controllers or not controllers:
                cpus += _cpus(folder)
            if "memory" in controllers or not controllers:
                memory += _memory(folder)
    return Limits(min(cpus, default=None), min(memory, default=None))


def fit(settings: Settings, limits: Limits) -> Settings:
    """Settings that keep within the limits.

    A number of workers that is set stays. Budgets of memory are what may be used at most, so that
    the lesser of setting and limit holds: who uses more than the limit is killed.

    Args:
        settings: as they were loaded.
        limits: what there is.
    """
    codec, http = {"workers": settings.codec.worker_count}, {}
    if not settings.codec.workers and limits.cpus is not None:
        codec["workers"] = max(1, min(settings.codec.worker_count, math.ceil(limits.cpus)))
    if limits.memory_bytes is not None:
        of_codec = int(limits.memory_bytes * _CODEC_SHARE)
        codec["budget_bytes"] = min(settings.codec.budget_bytes, max(1, of_codec))
        of_bodies = max(int(limits.memory_bytes * _BODIES_SHARE), settings.http.body_limit_bytes)
        http["intake_bytes"] = min(settings.http.intake_bytes, of_bodies)
    return settings.model_copy(
        update={
            "codec": settings.codec.model_copy(update=codec),
            "http": settings.http.model_copy(update=http),
        }
    )


def _memberships(root: Path) -> Iterator[tuple[frozenset[str], PurePosixPath]]:
    """Controllers and group of each hierarchy; no controllers are those of version 2."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, group = rest.partition(":")
        if colon:
            yield frozenset(filter(None, controllers.split(","))), PurePosixPath(group)


def _folders(mount: Path, controllers: frozenset[str], group: PurePosixPath) -> Iterator[Path]:
    """Where the files of a group may be, and of all above it.

    A container sees its own group as the root, while the name may be the one outside.
    """
    mounted = [
        mount / ",".join(order) for order in (sorted(controllers), sorted(controllers)[::-1])
    ]
    mounted += [mount / each for each in sorted(controllers)]
    if not controllers:
        mounted = [mount, mount / "unified"]
    parts = [part for part in group.parts if part not in ("/", "..")]
    for base in dict.fromkeys(mounted):
        for count in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:count])


def _cpus(folder: Path) -> list[float]:
    """The quota of one group, of either version."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    found, every = _number(quota), _number(period)
    return [found / every] if found and every else []


def _memory(folder: Path) -> list[int]:
    """The limit of one group, of either version."""
    limits = (_number(_text(folder / name)) for name in ("memory.max", "memory.limit_in_bytes"))
    return [limit for limit in limits if limit and limit < _NO_LIMIT_BYTES]


def _number(text: str) -> int | None:
    """A positive number; "max" and -1 are none."""
    return int(text) if text.isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(_MOST_BYTES).strip()
    except OSError:
        return ""
