"""Case 8: memory for large images at once, and after very many."""

from __future__ import annotations

import asyncio
import contextlib
import statistics

from bench.figures import Figure
from bench.lab import Lab
from bench.photographs import SIZES, TINY, make
from bench.stand import stand

_AT_ONCE = 8
_REQUESTS, _EACH = 20, 1000
_SETTLED = 5  # requests after which growth is looked for


async def run(lab: Lab) -> list[Figure]:
    """Peak PSS for large images at once, and PSS after each thousand of tiny ones."""
    return [await _large(lab), *await _many(lab)]


async def _large(lab: Lab) -> Figure:
    files = make(SIZES["12 MP"], lab.cache)
    peaks = []
    for _ in range(lab.rounds):
        async with stand({file.parent for file in files}) as made:
            held: list[float] = []

            async def watch(made=made, held=held) -> None:  # noqa: ANN001 - of this round
                while True:
                    now = made.meter.pss_mb()
                    held.append(now["parent"] + now["workers"])
                    await asyncio.sleep(0.05)

            watching = asyncio.create_task(watch())
            await made.run(made.urls(files, _AT_ONCE))
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            peaks.append(max(held))
    return Figure("memory", f"peak PSS of the service, {_AT_ONCE} x 12 MP", "MB", tuple(peaks))


async def _many(lab: Lab) -> list[Figure]:
    files = make(TINY, lab.cache)
    after: dict[str, list[float]] = {"parent": [], "workers": []}
    async with stand({file.parent for file in files}) as made:
        for _ in range(_REQUESTS):
            await made.run(made.urls(files, _EACH))
            held = made.meter.pss_mb()
            for part, values in after.items():
                values.append(held[part])
    found = []
    for part, values in after.items():
        settled = values[_SETTLED:]
        slope = statistics.linear_regression(range(len(settled)), settled).slope
        noise = statistics.stdev(settled)
        name = f"PSS of {part} over {_REQUESTS * _EACH:,} images: growth in a thousand"
        found.append(Figure("memory", name, "MB", (slope,), max(0.1, noise)))
        name = f"PSS of {part} after each thousand of {_REQUESTS * _EACH:,} images"
        found.append(Figure("memory", name, "MB", tuple(values)))
    return found
