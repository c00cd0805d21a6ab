"""Case 3: thumbor, and sharp as the codec of the Node world, beside the service in the same run.

Both are fetched from their registries into the bench's cache when this case is run.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from bench import batch
from bench.command import output_of
from bench.figures import Figure
from bench.lab import Lab
from bench.meter import Meter
from bench.photographs import Size, make
from bench.stand import QUALITY, stand
from imgsvc.embedded.ports import LOOPBACK, free_ports
from imgsvc.embedded.server import Server

_THUMBOR, _SHARP = "thumbor==7.8.0", "sharp@0.35.5"
_OF_THUMBOR = {"150 kB": 1.2, "1 MB": 0.75, "12 MP": None}
_BYTES = 1.02
_WARM_UP = 16
_CLIENTS = 8


async def run(lab: Lab) -> list[Figure]:
    """CPU of an image and bytes of output, each divided by the peer's, for each size."""
    python = await _thumbor(lab.cache)
    sharp = await _sharp(lab.cache)
    found: list[Figure] = []
    for size in lab.sizes:
        ours = await lab.batches(size)
        files = make(size, lab.cache)
        per_bare, sharps = [], {"sharp": [], "sharp, optimiseCoding off": []}
        bytes_out = 0.0
        for _ in range(lab.rounds):
            before = await batch.bare(files, size.batch)
            per_bare.append(await _by_thumbor(python, size, files) / before.cpu_ms)
            for name, told in zip(sharps, ("true", "false"), strict=True):
                cpu_ms, sharp_bytes = await _by_sharp(sharp, size, files, told)
                sharps[name].append(cpu_ms / before.cpu_ms)
                bytes_out = bytes_out or before.bytes_out / sharp_bytes
        service = tuple(one.service_ms / one.bare.cpu_ms for one in ours)
        relative = tuple(us / them for us, them in zip(service, per_bare, strict=True))
        found += [
            Figure("peers", f"{size.name}: CPU of thumbor ÷ bare codec's", "", tuple(per_bare)),
            Figure(
                "peers",
                f"{size.name}: CPU of the service ÷ thumbor's",
                "",
                relative,
                _OF_THUMBOR[size.name],
            ),
            *(
                Figure("peers", f"{size.name}: CPU of {name} ÷ bare codec's", "", tuple(ratios))
                for name, ratios in sharps.items()
            ),
            Figure("peers", f"{size.name}: bytes of output ÷ sharp's", "", (bytes_out,), _BYTES),
        ]
    return found


async def _by_thumbor(python: Path, size: Size, files: Sequence[Path]) -> float:
    """CPU milliseconds of an image, of one thumbor process for each core."""
    async with stand({file.parent for file in files}) as made, _serving(python) as (urls, meter):
        addresses = made.urls(files, size.batch + _WARM_UP)
        paths = [
            f"{url}/unsafe/filters:quality({QUALITY})/{address.removeprefix('http://')}"
            for url, address in zip(itertools.cycle(urls), addresses, strict=False)
        ]
        connector = aiohttp.TCPConnector(limit_per_host=_CLIENTS // len(urls))
        async with aiohttp.ClientSession(connector=connector) as session:

            async def get(path: str) -> None:
                async with session.get(path) as response:
                    await response.read()
                    response.raise_for_status()

            await asyncio.gather(*map(get, paths[:_WARM_UP]))
            earlier = meter.cpu_s()
            await asyncio.gather(*map(get, paths[_WARM_UP:]))
            used = meter.cpu_s().minus(earlier)
    return sum(used.values()) / size.batch * 1000


@contextlib.asynccontextmanager
async def _serving(python: Path) -> AsyncIterator[tuple[list[str], Meter]]:
    """One thumbor for each core: with ``--processes`` it leaves its children behind."""
    ports = free_ports(os.cpu_count() or 1)
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imgsvc-bench-")))
        settings = home / "thumbor.conf"
        settings.write_text(
            f"QUALITY = {QUALITY}\nPROGRESSIVE_JPEG = False\nAUTO_WEBP = False\n"
            "STORAGE = 'thumbor.storages.no_storage'\n"
        )
        probe = (b"GET /healthcheck HTTP/1.0\r\n\r\n", b" 200 OK")
        for port in ports:
            address = ("--ip", LOOPBACK, "--port", str(port), "--conf", str(settings))
            command = [str(python), "-m", "thumbor.server", *address]
            server = Server("thumbor", port, command, home / f"{port}.log", probe)
            stack.push_async_callback(server.stop)
            await server.start()
        urls = [f"http://{LOOPBACK}:{port}" for port in ports]
        yield urls, Meter.of({"thumbor": "thumbor.server"})


async def _by_sharp(
    home: Path, size: Size, files: Sequence[Path], optimise: str
) -> tuple[float, float]:
    """CPU milliseconds and bytes of an image, encoded by sharp in one process."""
    script = Path(__file__).with_name("sharp.cjs")
    told = await output_of(
        "node",
        *(str(script), str(home), str(size.batch), str(QUALITY), optimise, *map(str, files)),
    )
    answer = json.loads(told)
    return answer["cpu_ms"] / size.batch, answer["bytes_out"] / size.batch


async def _thumbor(cache: Path) -> Path:
    """The Python of an environment that has thumbor."""
    python = cache / "thumbor" / "bin" / "python"
    if not python.exists():
        await output_of(sys.executable, "-m", "venv", str(cache / "thumbor"))
        await output_of(str(python), "-m", "pip", "install", "--quiet", _THUMBOR, "setuptools<81")
    return python


async def _sharp(cache: Path) -> Path:
    """The folder into which sharp is installed."""
    home = cache / "sharp"
    if not (home / "node_modules" / "sharp").exists():
        home.mkdir(parents=True, exist_ok=True)
        await output_of("npm", "install", "--silent", "--prefix", str(home), _SHARP)
    return home
