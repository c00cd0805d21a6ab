"""Case 3 again: an Express, BullMQ, sharp and MongoDB stack, in alternation with the service.

The stack is in ``bench/peers/express``: an idiomatic one with a job and an update for each image,
and without limits, guards, retries of its own or a ledger that survives Redis. It gets the same
requests for the same photographs, and the same servers with nothing in them yet.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from bench import batch
from bench.command import output_of
from bench.figures import Figure
from bench.lab import Lab
from bench.photographs import Size, make
from bench.stand import Peer, stand
from imgsvc.embedded.servers import Endpoints

_APP = Path(__file__).parents[1] / "peers" / "express"
_CONCURRENCY = 8  # jobs at once: with 4 or 16 the stack is no faster on two cores
_CPU = {"150 kB": 0.55, "1 MB": 0.75, "12 MP": None}
_PER_S = {"150 kB": 1.9, "1 MB": 1.4, "12 MP": None}


@dataclass(frozen=True)
class _Round:
    cpu_ms: float  # of an image, of the whole process tree
    per_s: float
    pss_mb: float


async def run(lab: Lab) -> list[Figure]:
    """CPU of an image and images per second of both, and what the service has of the stack's."""
    peer = await _peer(lab.cache)
    found: list[Figure] = []
    for size in lab.sizes:
        ours, theirs = [], []
        for number in range(lab.rounds):
            turns = [(ours, None), (theirs, peer)]
            for rounds, who in turns if number % 2 else reversed(turns):
                rounds.append(await _round(size, lab.cache, who))
            print(f"  {size.name}, round {number + 1}: {_told(ours[-1], theirs[-1])}", flush=True)
        found += _figures(size, ours, theirs)
    return found


def _figures(size: Size, ours: list[_Round], theirs: list[_Round]) -> list[Figure]:
    pairs = list(zip(ours, theirs, strict=True))

    def figure(name: str, unit: str, values: list[float], **mark: float | bool | None) -> Figure:
        return Figure("express", f"{size.name}: {name}", unit, tuple(values), **mark)

    return [
        figure("CPU of an image, Express stack", "ms", [one.cpu_ms for one in theirs]),
        figure("CPU of an image, service", "ms", [one.cpu_ms for one in ours]),
        figure(
            "CPU of the service ÷ Express stack's",
            "",
            [us.cpu_ms / them.cpu_ms for us, them in pairs],
            reach=_CPU[size.name],
        ),
        figure("images per second, Express stack", "1/s", [one.per_s for one in theirs]),
        figure("images per second, service", "1/s", [one.per_s for one in ours]),
        figure(
            "images per second ÷ Express stack's",
            "",
            [us.per_s / them.per_s for us, them in pairs],
            reach=_PER_S[size.name],
            at_least=True,
        ),
        figure("peak PSS, Express stack", "MB", [one.pss_mb for one in theirs]),
        figure("peak PSS, service", "MB", [one.pss_mb for one in ours]),
    ]


def _told(ours: _Round, theirs: _Round) -> str:
    return (
        f"{ours.cpu_ms:.1f} ms CPU of an image, Express stack {theirs.cpu_ms:.1f}; "
        f"{ours.per_s:.1f} images/s, Express stack {theirs.per_s:.1f}"
    )


async def _round(size: Size, cache: Path, peer: Peer | None) -> _Round:
    files = make(size, cache)
    async with stand({file.parent for file in files}, peer=peer) as made:
        await made.run(made.urls(files, batch.WARM_UP))
        wall_s, used, pss_mb = await batch.request(made, made.urls(files, size.batch))
    return _Round(used.service / size.batch * 1000, size.batch / wall_s, pss_mb)


async def _peer(cache: Path) -> Peer:
    """The stack, installed into the cache with the packages that it pins."""
    home = cache / "express"
    shutil.copytree(_APP, home, dirs_exist_ok=True)
    await output_of(
        "npm", "install", "--silent", "--no-package-lock", "--no-audit", "--prefix", str(home)
    )

    def command(ends: Endpoints, port: int) -> list[str]:
        settings = {
            "NODE_ENV": "production",
            "PORT": str(port),
            "REDIS_HOST": ends.redis_host,
            "REDIS_PORT": str(ends.redis_port),
            "MONGO_URI": ends.mongo_uri,
            "GCS_ENDPOINT": ends.gcs_url,
            "CONCURRENCY": str(_CONCURRENCY),
        }
        pairs = [f"{name}={value}" for name, value in settings.items()]
        return ["env", *pairs, "node", str(home / "main.js")]

    return Peer(command, word=str(home / "main.js"))
