"""Case 4: the API's speed, when nothing else is to do and while all cores compress."""

from __future__ import annotations

import asyncio

from bench.figures import Figure
from bench.lab import Lab
from bench.latency import as_fast_as_possible, at_rate, percentile
from bench.photographs import SIZES, TINY, make
from bench.stand import Stand, stand, upload

_STATUS_PER_S, _UPLOADS_PER_S, _SECONDS = 50, 5, 8
_CLIENTS, _READS, _POSTS = 8, 2000, 200
_WORK = 400  # images of 1 MB, more than can be done meanwhile
_REACH = {"GET /status": 25.0, "POST /api/upload": 60.0}


async def run(lab: Lab) -> list[Figure]:
    """Calls a second and percentiles of their times, for each of the two calls."""
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(lab.rounds):
        for name, unit, value in await _round(lab):
            found.setdefault((name, unit), []).append(value)
    return [
        Figure("api", name, unit, tuple(values), _reach(name))
        for (name, unit), values in found.items()
    ]


def _reach(name: str) -> float | None:
    busy_p99 = name.endswith("busy: p99")
    return next((ms for call, ms in _REACH.items() if busy_p99 and name.startswith(call)), None)


async def _round(lab: Lab) -> list[tuple[str, str, float]]:
    tiny, large = make(TINY, lab.cache), make(SIZES["1 MB"], lab.cache)
    told = []
    async with stand({file.parent for file in (*tiny, *large)}) as made:
        request_id = await made.post(made.urls(tiny, 20))
        await made.ended(request_id)

        async def status() -> int:
            async with made.session.get(f"{made.url}/status/{request_id}") as response:
                await response.read()
                return response.status

        async def post() -> int:
            body = upload(made.urls(tiny, 10), 1)
            async with made.session.post(f"{made.url}/api/upload", json=body) as response:
                await response.read()
                return response.status

        for name, call, per_s in (
            ("GET /status", status, _STATUS_PER_S),
            ("POST /api/upload", post, _UPLOADS_PER_S),
        ):
            told += _percentiles(f"{name}, idle", await at_rate(call, per_s, _SECONDS))
        rate = await as_fast_as_possible(status, _CLIENTS, _READS)
        told.append((f"GET /status: of {_CLIENTS} clients", "1/s", rate))
        await _quiet(made)
        rate = await as_fast_as_possible(post, _CLIENTS, _POSTS)
        told.append((f"POST /api/upload of 10 products: of {_CLIENTS} clients", "1/s", rate))
    async with stand({file.parent for file in (*tiny, *large)}) as made:
        request_id = await made.post(made.urls(large, _WORK))
        await asyncio.sleep(2)  # until the first images are being encoded
        reads, posts = await asyncio.gather(
            at_rate(status, _STATUS_PER_S, _SECONDS), at_rate(post, _UPLOADS_PER_S, _SECONDS)
        )
        told += _percentiles("GET /status, busy", reads)
        told += _percentiles("POST /api/upload, busy", posts)
    return told


async def _quiet(made: Stand) -> None:
    """Wait until nothing is open: idle for as long as an image takes."""
    while True:
        before = made.meter.cpu_s()
        await asyncio.sleep(1)
        if made.meter.cpu_s().minus(before)["workers"] == 0:
            return


def _percentiles(name: str, values: tuple[float, ...]) -> list[tuple[str, str, float]]:
    return [(f"{name}: p{percent}", "ms", percentile(values, percent)) for percent in (50, 99)]
