"""Case 1: CPU of the service's process tree for an image, divided by the bare codec's."""

from __future__ import annotations

from bench.figures import Figure
from bench.lab import Lab

_REACH = {"150 kB": 1.60, "1 MB": 1.20, "12 MP": 1.05}


async def run(lab: Lab) -> list[Figure]:
    """The ratio, and where the CPU went, for each size."""
    found = []
    for size in lab.sizes:
        rounds = await lab.batches(size)
        ratios = tuple(one.service_ms / one.bare.cpu_ms for one in rounds)
        name = f"{size.name}: service CPU ÷ bare codec CPU"
        found.append(Figure("overhead", name, "", ratios, _REACH[size.name]))
        bare = tuple(one.bare.cpu_ms for one in rounds)
        found.append(Figure("overhead", f"{size.name}: CPU of an image, bare codec", "ms", bare))
        for part in rounds[0].used:
            spent = tuple(one.used[part] / one.images * 1000 for one in rounds)
            found.append(Figure("overhead", f"{size.name}: CPU of an image, {part}", "ms", spent))
        pss = tuple(one.peak_pss_mb for one in rounds)
        found.append(Figure("overhead", f"{size.name}: peak PSS of the service", "MB", pss))
    return found
