"""Case 5: what an image costs in requests of more and more images."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import redis.asyncio

from bench.figures import Figure
from bench.lab import Lab
from bench.latency import percentile
from bench.photographs import TINY, make
from bench.stand import Stand, stand

_WARM_UP = 50
_EVERY_S = 0.1
_FLAT = 1.10
_MB = 1_000_000


@dataclass
class _Watched:
    """What was seen while a request ran."""

    status_ms: list[float] = field(default_factory=list)
    redis_mb: list[float] = field(default_factory=list)
    parent_mb: list[float] = field(default_factory=list)


async def run(lab: Lab) -> list[Figure]:
    """One request of each length, each on a stand of its own."""
    found: list[Figure] = []
    costs: dict[int, float] = {}
    for images in lab.lengths:
        seen, costs[images] = await _request(lab, images)
        found += seen
        print(f"  {images:,} images done", flush=True)
    if len(costs) > 1:
        *_, before, last = costs
        ratio = costs[last] / costs[before]
        name = f"service CPU of an image, {last:,} ÷ {before:,} images"
        found.append(Figure("growth", name, "", (ratio,), _FLAT))
    return found


async def _request(lab: Lab, images: int) -> tuple[list[Figure], float]:
    files = make(TINY, lab.cache)
    async with stand({file.parent for file in files}) as made:
        await made.run(made.urls(files, _WARM_UP))
        urls = made.urls(files, images)
        earlier = made.meter.cpu_s()
        request_id = await made.post(urls)
        watched, watching = _Watched(), None
        watching = asyncio.create_task(_watch(made, request_id, watched))
        began = time.monotonic()
        wall_s = await made.ended(request_id) - began
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        used = made.meter.cpu_s().minus(earlier)
        first_ms, whole_ms = await _report(made, request_id)
    service_ms = used.service / images * 1000
    figures = [
        ("CPU of an image, service", "ms", service_ms, None),
        ("CPU of an image, parent", "ms", used["parent"] / images * 1000, None),
        ("CPU of an image, mongo", "ms", used["mongo"] / images * 1000, None),
        ("images per second", "1/s", images / wall_s, None),
        ("peak memory of Redis", "MB", max(watched.redis_mb), None),
        ("peak PSS of the parent", "MB", max(watched.parent_mb), 150.0),
        ("GET /status p99", "ms", percentile(watched.status_ms, 99), None),
        ("CSV: first byte", "ms", first_ms, 200.0),
        ("CSV: whole", "ms", whole_ms, None),
    ]
    return [
        Figure("growth", f"{images:,} images: {name}", unit, (value,), reach)
        for name, unit, value, reach in figures
    ], service_ms


async def _watch(made: Stand, request_id: str, watched: _Watched) -> None:
    client = redis.asyncio.Redis(port=made.servers.endpoints.redis_port)
    async with client:
        while True:
            began = time.monotonic()
            async with made.session.get(f"{made.url}/status/{request_id}") as response:
                await response.read()
            watched.status_ms.append((time.monotonic() - began) * 1000)
            memory = await client.info("memory")
            watched.redis_mb.append(memory["used_memory"] / _MB)
            watched.parent_mb.append(made.meter.pss_mb()["parent"])
            await asyncio.sleep(_EVERY_S)


async def _report(made: Stand, request_id: str) -> tuple[float, float]:
    """Milliseconds to the first byte of the CSV, and to its last."""
    began = time.monotonic()
    async with made.session.get(f"{made.url}/download/{request_id}") as response:
        response.raise_for_status()
        await response.content.readany()
        first = time.monotonic()
        await response.read()
    return (first - began) * 1000, (time.monotonic() - began) * 1000
