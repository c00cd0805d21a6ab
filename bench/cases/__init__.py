"""The cases, by the name they are chosen with, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bench.cases import overhead, share
from bench.figures import Figure
from bench.lab import Lab

CASES: dict[str, Callable[[Lab], Awaitable[list[Figure]]]] = {
    "overhead": overhead.run,
    "share": share.run,
}
