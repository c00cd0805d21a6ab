"""One measured batch: the bare codec, the service, the bare codec again, on the same photographs.

Whatever else runs on the machine slows all three. A round in which the two runs of the codec
disagree says nothing and is run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.meter import Usage
from bench.photographs import Size, make
from bench.stand import QUALITY, Stand, stand

WARM_UP = 24
_AGREE = 0.20  # of each other: so far may the codec before and after be apart
_TRIES = 3
_PSS_EVERY_S = 0.5


@dataclass(frozen=True)
class Bare:
    """What the bare codec cost."""

    cpu_ms: float  # of an image
    images_per_s: float
    bytes_out: float  # of an image


@dataclass(frozen=True)
class Batch:
    """What one request cost, and what the bare codec costs beside it."""

    images: int
    wall_s: float
    used: Usage
    peak_pss_mb: float  # of all processes of the service
    bare: Bare  # the mean of before and after
    apart: float  # how far these two were, as a share of the smaller

    @property
    def service_ms(self) -> float:
        """CPU of the service for an image."""
        return self.used.service / self.images * 1000


async def measure(size: Size, cache: Path) -> Batch:
    """One round that counts.

    Raises:
        RuntimeError: the machine is not quiet enough.
    """
    for _ in range(_TRIES):
        batch = await _round(size, cache)
        if batch.apart <= _AGREE:
            return batch
        print(f"  the bare codec before and after differ by {batch.apart:.0%}: again")
    raise RuntimeError(f"{_TRIES} rounds in a row were disturbed: is the machine busy?")


async def bare(files: Sequence[Path], images: int) -> Bare:
    """Run the bare codec in processes of its own."""
    script = Path(__file__).with_name("bare.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), str(images), str(QUALITY), *map(str, files)),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    answer = json.loads(told)
    return Bare(
        cpu_ms=answer["cpu_s"] / images * 1000,
        images_per_s=images / answer["wall_s"],
        bytes_out=answer["bytes_out"] / images,
    )


async def _round(size: Size, cache: Path) -> Batch:
    files = make(size, cache)
    async with stand({file.parent for file in files}) as made:
        await made.run(made.urls(files, WARM_UP))
        before = await bare(files, size.batch)
        wall_s, used, pss_mb = await request(made, made.urls(files, size.batch))
        after = await bare(files, size.batch)
    low, high = sorted((before.cpu_ms, after.cpu_ms))
    return Batch(
        images=size.batch,
        wall_s=wall_s,
        used=used,
        peak_pss_mb=pss_mb,
        bare=Bare(
            cpu_ms=(low + high) / 2,
            images_per_s=(before.images_per_s + after.images_per_s) / 2,
            bytes_out=before.bytes_out,
        ),
        apart=high / low - 1,
    )


async def request(made: Stand, urls: Sequence[str]) -> tuple[float, Usage, float]:
    """Wall seconds, CPU seconds and peak memory of one request."""
    peaks: list[float] = []

    async def watch() -> None:
        while True:
            held = made.meter.pss_mb()
            peaks.append(held["parent"] + held["workers"])
            await asyncio.sleep(_PSS_EVERY_S)

    watching = asyncio.create_task(watch())
    began, earlier = time.monotonic(), made.meter.cpu_s()
    request_id = await made.post(urls)
    wall_s = await made.ended(request_id) - began
    used = made.meter.cpu_s().minus(earlier)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return wall_s, used, max(peaks)
