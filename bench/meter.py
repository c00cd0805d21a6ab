"""What each part costs: CPU seconds and memory of its process tree, from the kernel's counters."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Self

import psutil

_MB = 1_000_000


class Usage(Counter[str]):
    """CPU seconds by part."""

    def minus(self, earlier: Usage) -> Usage:
        """What was used since."""
        return Usage({part: used - earlier[part] for part, used in self.items()})

    @property
    def service(self) -> float:
        """Of all processes of the service."""
        return self["parent"] + self["workers"]

    @property
    def others(self) -> float:
        """Of what only stands in for the world: servers, origin."""
        return sum(self.values()) - self.service


class Meter:
    """Reads the counters of process trees.

    Args:
        roots: pids by part; ``service`` ones are told apart into ``parent``, the process that was
            started, and ``workers``, all that descend from it.
    """

    def __init__(self, roots: dict[str, list[int]]) -> None:
        self._roots = roots

    @classmethod
    def of(cls, commands: dict[str, str]) -> Self:
        """A meter of children of this process, told by a word of their command lines."""
        roots: dict[str, list[int]] = {part: [] for part in commands}
        for watcher in psutil.Process().children():
            for child in watcher.children():
                line = " ".join(child.cmdline())
                for part, word in commands.items():
                    if word in line:
                        roots[part].append(child.pid)
        return cls(roots)

    def cpu_s(self) -> Usage:
        """CPU seconds so far, by part; processes that have ended count with their parent."""
        used = Usage()
        for part, process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[part] += times.user + times.system
                used[part] += times.children_user + times.children_system
        return used

    def pss_mb(self) -> Counter[str]:
        """Memory now by part, shared pages divided among those who share them."""
        held: Counter[str] = Counter()
        for part, process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                held[part] += process.memory_full_info().pss / _MB
        return held

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        for part, pids in self._roots.items():
            for pid in pids:
                root = psutil.Process(pid)
                yield ("parent" if part == "service" else part), root
                for process in root.children(recursive=True):
                    yield ("workers" if part == "service" else part), process
