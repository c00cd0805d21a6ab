"""What all cases of one run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench import batch
from bench.batch import Batch
from bench.photographs import Size


@dataclass
class Lab:
    """The plan of one run, and the batches that several cases look at.

    Args:
        cache: a folder for photographs and peers, kept between runs.
        sizes: photographs to measure with.
        rounds: how often each thing is measured.
        lengths: images in the requests of case ``growth``.
    """

    cache: Path
    sizes: list[Size]
    rounds: int
    lengths: list[int]
    _batches: dict[str, list[Batch]] = field(default_factory=dict)

    async def batches(self, size: Size) -> list[Batch]:
        """The rounds of one size, measured when they are first asked for."""
        if size.name not in self._batches:
            found = self._batches[size.name] = []
            for number in range(self.rounds):
                found.append(await batch.measure(size, self.cache))
                print(f"  {size.name}, round {number + 1}: {_told(found[-1])}", flush=True)
        return self._batches[size.name]


def _told(one: Batch) -> str:
    return (
        f"{one.service_ms:.1f} ms CPU of an image, bare codec {one.bare.cpu_ms:.1f}; "
        f"{one.images / one.wall_s:.1f} images/s, bare codec {one.bare.images_per_s:.1f}"
    )
