"""Case 7: several replicas on the same cores: nothing twice, and nothing lost to contention."""

from __future__ import annotations

import re

from bench.figures import Figure
from bench.lab import Lab
from bench.photographs import SIZES, make
from bench.stand import Stand, stand

_COUNTS = (1, 2, 4)
_DONE = re.compile(r'^imgsvc_images_total\{[^}]*status="COMPLETED"[^}]*\} (\S+)$', re.MULTILINE)


async def run(lab: Lab) -> list[Figure]:
    """Throughput with each number of replicas, and the share of each replica."""
    found: list[Figure] = []
    alone = ()
    for count in _COUNTS:
        per_s, surplus, shares = [], [], []
        for _ in range(lab.rounds):
            images, seconds, done = await _round(lab, count)
            per_s.append(images / seconds)
            surplus.append(sum(done) - images)
            shares.append(min(done) / sum(done))
        alone = alone or tuple(per_s)
        title = f"{count} replica{'s' * (count > 1)}"
        relative = tuple(some / one for some, one in zip(per_s, alone, strict=True))
        found += [
            Figure("replicas", f"{title}: images per second", "1/s", tuple(per_s)),
            Figure("replicas", f"{title}: beside one replica", "", relative, 1.0, at_least=True),
            Figure("replicas", f"{title}: images done twice", "", tuple(surplus), 0.0),
            Figure("replicas", f"{title}: share of the least busy", "", tuple(shares)),
        ]
    return found


async def _round(lab: Lab, count: int) -> tuple[int, float, list[float]]:
    size = SIZES["150 kB"]
    files = make(size, lab.cache)
    async with stand({file.parent for file in files}, replicas=count) as made:
        await made.run(made.urls(files, 24 * count))
        before = await _done(made)
        seconds = await made.run(made.urls(files, size.batch))
        after = await _done(made)
    done = [now - then for now, then in zip(after, before, strict=True)]
    return size.batch, seconds, done


async def _done(made: Stand) -> list[float]:
    """Images that each replica has stored so far."""
    counts = []
    for url in made.services:
        async with made.session.get(f"{url}/metrics") as response:
            counts.append(sum(map(float, _DONE.findall(await response.text()))))
    return counts
