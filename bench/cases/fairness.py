"""Case 6: a request of one image, posted while one of 10,000 runs."""

from __future__ import annotations

import asyncio
import statistics

from bench.figures import Figure
from bench.lab import Lab
from bench.photographs import SIZES, make
from bench.stand import stand

_LONG = 10_000
_TRIES = 5


async def run(lab: Lab) -> list[Figure]:
    """Its time on an idle service, and beside the long one."""
    size = SIZES["150 kB"]
    files = make(size, lab.cache)
    async with stand({file.parent for file in files}) as made:
        await made.run(made.urls(files, 24))
        idle = [await made.run(made.urls(files, 1)) for _ in range(_TRIES)]
        began = made.meter.cpu_s()
        await made.run(made.urls(files, 100))
        image_s = made.meter.cpu_s().minus(began).service / 100
        await made.post(made.urls(files, _LONG))
        await asyncio.sleep(4)  # until its images fill every mailbox
        beside = [await made.run(made.urls(files, 1)) for _ in range(_TRIES)]
    allowed_s = 2 * statistics.median(idle) + image_s
    name = f"a request of one image beside one of {_LONG:,}"
    return [
        Figure("fairness", "a request of one image on an idle service", "s", tuple(idle)),
        Figure("fairness", name, "s", tuple(beside), allowed_s),
    ]
