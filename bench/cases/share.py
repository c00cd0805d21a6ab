"""Case 2: how much of the CPU that the emulators leave goes into the codec."""

from __future__ import annotations

import os

from bench.batch import Batch
from bench.figures import Figure
from bench.lab import Lab

_REACH = {"150 kB": 0.55, "1 MB": 0.85, "12 MP": None}


async def run(lab: Lab) -> list[Figure]:
    """The share, and images per second beside the bare codec's, for each size."""
    found = []
    for size in lab.sizes:
        rounds = await lab.batches(size)
        shares = tuple(map(_share, rounds))
        name = f"{size.name}: codec's share of the CPU left by the emulators"
        found.append(Figure("share", name, "", shares, _REACH[size.name], at_least=True))
        per_s = tuple(one.images / one.wall_s for one in rounds)
        found.append(Figure("share", f"{size.name}: images per second", "1/s", per_s))
        relative = tuple(one.images / one.wall_s / one.bare.images_per_s for one in rounds)
        found.append(
            Figure("share", f"{size.name}: images per second ÷ bare codec's", "", relative)
        )
    return found


def _share(one: Batch) -> float:
    left_s = one.wall_s * (os.cpu_count() or 1) - one.used.others
    return one.images * one.bare.cpu_ms / 1000 / left_s
