"""Worker processes: they are lost, late, hungry or orphaned, and only their own image pays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from PIL import Image

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging.pool import CodecPool
from imgsvc.imaging.tasks import Result, Task
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import Codec
from tests.photos import photo
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
TASK_S = 4.0  # for one image: a good one takes far less, also on a busy machine

OWNER = """
import asyncio, os, signal, sys
from multiprocessing import forkserver
from imgsvc.imaging.pool import CodecPool
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import Codec

async def own():
    pool = CodecPool(Codec(workers=2), Metrics())
    await pool.start()
    if "--fork-server-lost" in sys.argv:
        server = forkserver._forkserver._forkserver_pid
        os.kill(server, signal.SIGKILL)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
        for worker in pool._workers:
            worker.stop(kill=True)
            await worker.start()
    print(*(worker._pid for worker in pool._workers))
    names = "GCP_KEY_BASE64", "IMGSVC_REDIS__PASSWORD"
    known = [worker._executor.submit(os.getenv, n) for worker in pool._workers for n in names]
    print(*(answer.result() for answer in known), flush=True)
    await asyncio.sleep(60)

asyncio.run(own())
"""

Pools = Callable[..., Awaitable[CodecPool]]


def pids(pool: CodecPool) -> list[int]:
    """The worker processes that run now."""
    return [worker._pid for worker in pool._workers if worker._pid]


def lives(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


async def is_gone(*processes: int) -> None:
    async def gone() -> bool:
        return not any(map(psutil.pid_exists, processes))

    await wait_until(gone, f"processes {processes} are gone", 5)


@pytest.fixture
async def pool() -> AsyncIterator[Pools]:
    """Starts pools, of one worker if not told otherwise."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**codec: Any) -> CodecPool:
            made = CodecPool(Codec(**{"workers": 1, **codec}), Metrics())
            await made.start()

            async def end() -> None:
                running = pids(made)
                made.close()
                await is_gone(*running)

            stack.push_async_callback(end)
            return made

        yield start


@pytest.fixture
def picture(tmp_path: Path) -> Task:
    """Something to encode."""
    (tmp_path / "picture").write_bytes(photo("coffee.png"))
    return Task(tmp_path / "picture", tmp_path / "result", Recipe(format="jpeg"))


@pytest.fixture
def endless(tmp_path: Path) -> Task:
    """A file whose worker never gets to its end: a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    return Task(tmp_path / "pipe", tmp_path / "never", Recipe())


async def refusal(call: Awaitable[Result]) -> ErrorCode:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.code


def lost(pool: CodecPool, reason: str) -> float:
    return float(pool._metrics.codec_kills.labels(reason)._value.get())


async def test_a_file_is_encoded_into_another(pool: Pools, picture: Task) -> None:
    result = await (await pool()).encode(picture)
    encoded = picture.target.read_bytes()
    assert result.bytes_out == len(encoded) < picture.source.stat().st_size
    with Image.open(BytesIO(encoded)) as image:
        assert (image.format, image.size) == ("JPEG", (result.width, result.height))
    assert (result.format, result.note) == ("jpeg", "encoded")


async def test_a_file_that_cannot_be_encoded_gets_its_code(pool: Pools, picture: Task) -> None:
    made = await pool(max_pixels=100)
    assert await refusal(made.encode(picture)) is ErrorCode.TOO_MANY_PIXELS
    picture.source.write_text("This is a text.")
    assert await refusal(made.encode(picture)) is ErrorCode.NOT_AN_IMAGE
    assert not picture.target.exists()


async def test_a_file_that_is_gone_is_told_apart_from_a_bad_one(pool: Pools, picture: Task) -> None:
    made = await pool()
    before = pids(made)
    picture.source.unlink()
    with pytest.raises(FileNotFoundError):
        await made.encode(picture)
    assert pids(made) == before, "it costs no worker"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
async def test_a_full_disk_is_a_matter_of_time(pool: Pools, picture: Task) -> None:
    picture.target.symlink_to("/dev/full")
    assert await refusal((await pool()).encode(picture)) is ErrorCode.UNAVAILABLE


def session_of(pid: int) -> tuple[str, str]:
    """What the kernel shares its processors among, and how nice that is."""
    name, _, nice = Path(f"/proc/{pid}/autogroup").read_text().split()
    return name, nice


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no autogroups here")
async def test_workers_let_others_go_first_where_the_kernel_shares_among_sessions(
    pool: Pools,
) -> None:
    workers = pids(await pool(workers=3))

    async def are_nice() -> bool:
        sessions = dict(map(session_of, workers))
        return len(sessions) == 3 and set(sessions.values()) == {"5"}

    await wait_until(are_nice, "each has a session of its own, and that is nice")
    assert psutil.Process().nice() < min(psutil.Process(pid).nice() for pid in workers)


async def test_a_killed_worker_costs_its_own_image_only(
    pool: Pools, picture: Task, endless: Task
) -> None:
    made = await pool(workers=2)
    victim = made._idle[-1]._pid
    doomed = asyncio.create_task(made.encode(endless))
    beside = asyncio.create_task(made.encode(picture))
    assert await beside
    os.kill(victim, signal.SIGKILL)
    assert await refusal(doomed) is ErrorCode.CODEC_CRASHED
    assert lost(made, "crash") == 1
    assert all(await asyncio.gather(*(made.encode(picture) for _ in range(4))))
    assert victim not in pids(made)


async def test_an_image_behind_one_that_is_late_is_encoded_all_the_same(
    pool: Pools, picture: Task, endless: Task
) -> None:
    made = await pool(task_s=TASK_S)
    late, behind = asyncio.create_task(made.encode(endless)), made.encode(picture)
    assert await behind
    assert await refusal(late) is ErrorCode.CODEC_TIMEOUT
    assert (lost(made, "deadline"), lost(made, "crash")) == (1, 0)


async def test_the_time_of_an_image_begins_with_its_turn(pool: Pools, endless: Task) -> None:
    made = await pool(task_s=1)
    begun: list[float] = []

    async def overrun() -> float:
        call = made.encode(endless, lambda: begun.append(time.monotonic()))
        assert await refusal(call) is ErrorCode.CODEC_TIMEOUT
        return time.monotonic()

    refused = await asyncio.gather(overrun(), overrun())
    assert all(end - start > 0.9 for start, end in zip(begun, refused, strict=True))


async def test_an_idle_worker_that_was_killed_is_replaced(pool: Pools, picture: Task) -> None:
    made = await pool()
    os.kill(pids(made)[0], signal.SIGKILL)
    with contextlib.suppress(ServiceError):  # the loss may be noticed before or after
        await made.encode(picture)
    assert await made.encode(picture)


class Killer(threading.Thread):
    """Kills processes as soon as the fork server has forked them.

    Args:
        most: so many, then no more.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._server = psutil.Process(forkserver._forkserver._forkserver_pid)
        self._known = set(self._server.children())
        self._ended = threading.Event()
        self._left = most

    def run(self) -> None:
        while self._left and not self._ended.is_set():
            for worker in set(self._server.children()) - self._known:
                worker.kill()
                self._known.add(worker)
                self._left -= 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


async def test_a_worker_killed_while_it_starts_is_started_again(pool: Pools, picture: Task) -> None:
    await pool()  # from here on there is a fork server
    for _ in range(20):
        with Killer(1):
            made = await pool()
        with contextlib.suppress(ServiceError):  # it may have been killed just after its start
            await made.encode(picture)
        assert await made.encode(picture)
        if lost(made, "start"):
            return
    pytest.fail("no worker was killed while it started")


async def test_when_every_worker_dies_at_its_start_the_pool_says_so(pool: Pools) -> None:
    await pool()

    async def start_many() -> None:
        for _ in range(20):  # one may be quick enough to start before it is killed
            await pool()

    with Killer(1000), pytest.raises(ServiceError, match="No codec worker can be started"):
        await start_many()


async def test_a_worker_past_its_deadline_is_killed_and_its_slot_comes_back(
    pool: Pools, picture: Task, endless: Task
) -> None:
    made = await pool(task_s=TASK_S)
    (slow,) = pids(made)
    assert await refusal(made.encode(endless)) is ErrorCode.CODEC_TIMEOUT
    await is_gone(slow)
    assert lost(made, "deadline") == 1
    assert await made.encode(picture)


async def test_a_task_nobody_waits_for_any_more_ends_its_worker(
    pool: Pools, picture: Task, endless: Task
) -> None:
    made = await pool()
    (busy,) = pids(made)
    encoding = asyncio.create_task(made.encode(endless))

    async def is_reading() -> bool:
        return made._workers[0].tasks == 1

    await wait_until(is_reading, "the task is under way")
    encoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await encoding
    await is_gone(busy)
    assert await made.encode(picture)


async def test_a_start_that_is_given_up_leaves_no_process_that_nobody_can_kill(
    pool: Pools, picture: Task
) -> None:
    made = await pool()
    (worker,) = made._workers
    worker.stop(kill=True)
    encoding = asyncio.create_task(made.encode(picture))
    while worker._executor is None:  # noqa: ASYNC110 - it lasts a few milliseconds
        await asyncio.sleep(0)
    assert not worker._pid, "it is starting"
    encoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await encoding
    assert worker._executor is None
    assert await made.encode(picture)
    assert worker._pid


async def test_a_worker_is_replaced_after_its_number_of_tasks(pool: Pools, picture: Task) -> None:
    made = await pool(tasks_per_worker=2)
    (first,) = pids(made)
    await made.encode(picture)
    assert pids(made) == [first]
    await made.encode(picture)
    await is_gone(first)
    assert await made.encode(picture)
    assert pids(made) != [first]


async def test_a_worker_that_is_never_idle_is_replaced_too(pool: Pools, picture: Task) -> None:
    made = await pool(tasks_per_worker=2)
    (first,) = pids(made)
    assert all(await asyncio.gather(*(made.encode(picture) for _ in range(7))))
    await is_gone(first)
    assert lost(made, "crash") == 0


async def test_an_image_too_large_for_the_memory_is_refused_and_its_worker_goes_on(
    pool: Pools, picture: Task, tmp_path: Path
) -> None:
    bomb = Task(tmp_path / "bomb", tmp_path / "crater", Recipe(format="webp"))
    Image.new("RGB", (7000, 7000), (1, 2, 3)).save(bomb.source, "JPEG")
    (idle,) = pids(await pool())
    needed = psutil.Process(idle).memory_info().vms
    made = await pool(memory_bytes=needed + (120 << 20))
    before = pids(made)
    assert await made.encode(picture)
    assert await refusal(made.encode(bomb)) is ErrorCode.TOO_MANY_PIXELS
    assert await made.encode(picture)
    assert pids(made) == before


@dataclass(frozen=True)
class Owner:
    """A process that has credentials and owns a pool."""

    process: subprocess.Popen[str]
    workers: list[int]
    known_to_workers: list[str]


@pytest.fixture
def owner(request: pytest.FixtureRequest) -> Iterator[Owner]:
    credentials = {"GCP_KEY_BASE64": "private", "IMGSVC_REDIS__PASSWORD": "private"}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, *getattr(request, "param", [])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **credentials},
    ) as process:
        assert process.stdout
        workers = list(map(int, process.stdout.readline().split()))
        assert len(workers) == 2
        yield Owner(process, workers, process.stdout.readline().split())
        process.kill()


async def test_kill_9_of_the_owner_leaves_no_worker(owner: Owner) -> None:
    family = [child.pid for child in psutil.Process(owner.process.pid).children(recursive=True)]
    assert set(owner.workers) < set(family)
    owner.process.kill()

    async def all_ended() -> bool:
        return not any(map(lives, family))

    await wait_until(all_ended, "workers and the process they were forked from are gone", 5)


@pytest.mark.parametrize("owner", [[], ["--fork-server-lost"]], indirect=True)
def test_no_worker_can_read_credentials_from_its_environment(owner: Owner) -> None:
    for worker in owner.workers:
        # What it began with counts too: a decoder that is taken over can read /proc/self/environ.
        environment = psutil.Process(worker).environ()
        assert [name for name, value in environment.items() if value == "private"] == []


def test_no_worker_passes_credentials_on(owner: Owner) -> None:
    assert owner.known_to_workers == ["None"] * 4


async def test_images_that_need_more_than_their_share_wait_and_are_encoded(
    pool: Pools, tmp_path: Path
) -> None:
    # Their estimates are above the whole budget: they run one after the other.
    tight = await pool(workers=2, budget_bytes=1_000_000)
    tasks = []
    for name in ("retina.jpg", "rocket.jpg"):
        (tmp_path / name).write_bytes(photo(name))
        tasks.append(Task(tmp_path / name, tmp_path / f"{name}.out", Recipe()))
    results = await asyncio.gather(*map(tight.encode, tasks))
    assert [result.width for result in results] == [1411, 640]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="page faults are read from /proc")
async def test_a_worker_keeps_memory_for_the_next_image(pool: Pools, tmp_path: Path) -> None:
    workers = await pool(workers=1)
    large = tmp_path / "large.jpg"
    Image.radial_gradient("L").convert("RGB").resize((4000, 3000)).save(large, quality=95)
    task = Task(large, tmp_path / "out", Recipe(quality=50))
    (worker,) = pids(workers)

    def faults() -> int:  # see proc(5): minflt
        return int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[7])

    for _ in range(3):
        await workers.encode(task)
    before = faults()
    await workers.encode(task)
    assert faults() - before < 1000, "its pixels alone are 12,000 pages"
