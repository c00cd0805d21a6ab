"""Hostile files through real worker processes: each gets its code, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from PIL import Image

from imgsvc.domain.errors import ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging.pool import CodecPool
from imgsvc.imaging.tasks import Task
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import Codec
from tests import hostile
from tests.support import Origin, Service, wait_until

MB = 1 << 20
WORKER_ROOM = 180 * MB  # nine blocks of 16 MB for the next image, and heap not trimmed yet
OWNER_ROOM = 50 * MB

ACCEPTED = "accepted"
FILES: dict[str, dict[str, bytes]] = {
    "NOT_AN_IMAGE": hostile.NOT_IMAGES,
    "UNSUPPORTED_FORMAT": hostile.UNSUPPORTED,
    "IMAGE_CORRUPT": {
        **hostile.truncated(),
        **hostile.lies(),
        **{f"flood of {name}": data for name, data in hostile.part_flood().items()},
        **{f"inflating {name}": data for name, data in hostile.inflating().items()},
        "frames within frames": hostile.nested_webp(),
    },
    "TOO_MANY_PIXELS": {
        **{f"huge {name}": data for name, data in hostile.huge().items()},
        "flood of scans": hostile.scan_flood(),
        "flood of large frames": hostile.flood_of_large_frames(),
    },
    "TOO_MANY_FRAMES": {
        f"flood of frames, {name}": data for name, data in hostile.frame_flood().items()
    },
    ACCEPTED: hostile.polyglots(),
}
CASES = [(code, name) for code, files in FILES.items() for name in files]


def rss(pid: int | None = None) -> int:
    """Bytes of memory that a process has; of this one if not told otherwise."""
    return int(psutil.Process(pid).memory_info().rss)


@dataclass(frozen=True)
class Pit:
    """Where hostile files are thrown into: a pool whose workers and owner are watched."""

    pool: CodecPool
    folder: Path
    base: dict[int, int]
    owner_base: int

    async def outcome(self, data: bytes, wanted: str = "keep") -> str:
        """The code that a file fails with, or that it does not."""
        task = Task(
            self.folder / "in", self.folder / "out", Recipe.model_validate({"format": wanted})
        )
        task.source.write_bytes(data)
        try:
            await self.pool.encode(task)
        except ServiceError as error:
            return error.code.name
        return ACCEPTED

    def check(self) -> None:
        """The same workers as before, and all as large as before."""
        assert {worker._pid for worker in self.pool._workers} == set(self.base)
        grown = {pid: (rss(pid) - base) // MB for pid, base in self.base.items()}
        assert max(grown.values()) * MB < WORKER_ROOM, f"workers have grown by MB: {grown}"
        assert rss() - self.owner_base < OWNER_ROOM


async def watched(settings: Codec, folder: Path) -> Pit:
    """A pool, once each of its workers has decoded something."""
    pool = CodecPool(settings, Metrics())
    await pool.start()
    pit = Pit(pool, folder, {}, rss())
    tasks = []
    for n in range(pool.size):
        (folder / f"in{n}").write_bytes(hostile.WHOLE["jpeg"])
        tasks.append(Task(folder / f"in{n}", folder / f"out{n}", Recipe()))
    await asyncio.gather(*map(pool.encode, tasks))
    pit.base.update({worker._pid: rss(worker._pid) for worker in pool._workers})
    return pit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pit(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pit]:
    made = await watched(Codec(workers=2), tmp_path_factory.mktemp("pit"))
    yield made
    made.pool.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("code", "name"), CASES, ids=[f"{code} {name}" for code, name in CASES])
async def test_each_hostile_file_gets_its_code_and_costs_nothing(
    pit: Pit, code: str, name: str
) -> None:
    assert await pit.outcome(FILES[code][name]) == code
    pit.check()


# 49 megapixels, which is allowed: 150 MB to decode, many seconds to encode as WebP.
LARGE = hostile.saved(
    hostile.small().resize((7000, 7000), Image.Resampling.NEAREST), "JPEG", quality=95
)


async def test_what_is_very_large_but_allowed_gives_its_memory_back(tmp_path: Path) -> None:
    pit = await watched(Codec(workers=1), tmp_path)
    for _ in range(2):
        assert await pit.outcome(LARGE) == ACCEPTED
        pit.check()
    pit.pool.close()


async def test_what_takes_too_long_is_killed_and_its_worker_replaced(tmp_path: Path) -> None:
    pit = await watched(Codec(workers=1, task_s=1), tmp_path)
    (slow,) = pit.base
    assert await pit.outcome(LARGE, wanted="webp") == "CODEC_TIMEOUT"

    async def gone() -> bool:
        return not psutil.pid_exists(slow)

    await wait_until(gone, "the worker is gone")
    assert await pit.outcome(hostile.WHOLE["png"]) == ACCEPTED
    assert pit.pool._workers[0]._pid not in {0, slow}
    pit.pool.close()


# Some of each kind: enough to keep two workers busy while the service is asked how it is.
SERVED = [name for _, name in CASES[::4]]


async def test_the_service_answers_while_it_eats_them_and_is_as_large_afterwards(
    start_service: Any, origin: Origin
) -> None:
    expected = {name: code for code, name in CASES if name in SERVED}
    files = {name: data for of_code in FILES.values() for name, data in of_code.items()}
    urls = [origin.add(f"{n}", files[name]) for n, name in enumerate(expected)]
    urls.append(origin.add("large", LARGE))
    service: Service = await start_service(codec={"workers": 2})
    await service.finished(await service.upload([[origin.url("rocket.jpg")]]))
    base = rss()
    waits: list[float] = []
    worked: list[float] = []  # seconds of the loop's own thread in each wait

    async def ask() -> None:
        while True:
            asked, had_worked = time.monotonic(), time.thread_time()
            assert (await service.get("/healthz"))[0] == 200
            waits.append(time.monotonic() - asked)
            worked.append(time.thread_time() - had_worked)
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    done = await service.finished(await service.upload([urls]), within_s=60)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    images = await service.images(done["requestId"])
    codes = [image["error"]["code"] if image["error"] else ACCEPTED for image in images]
    assert codes == [*expected.values(), ACCEPTED]
    assert sorted(waits)[len(waits) // 2] < 0.1
    assert max(worked) < 0.1, "what is done before an answer is short, each time"
    assert max(waits) < 2, "the machine may be busy, the loop must not be"
    assert rss() - base < OWNER_ROOM
