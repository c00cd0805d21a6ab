"""A decoder that is taken over finds nothing: no sockets, no clients, no credentials, no room."""

from __future__ import annotations

import errno
import platform
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.domain.model import Recipe
from imgsvc.imaging.pool import CodecPool
from imgsvc.imaging.tasks import Task
from imgsvc.runtime.metrics import Metrics
from imgsvc.runtime.settings import Codec
from tests import hostile
from tests.support import Origin, Service

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio
import contextlib
import sys
from pathlib import Path

import imgsvc.app
from imgsvc.imaging.pool import CodecPool
from imgsvc.imaging.tasks import Task
from imgsvc.domain.errors import ServiceError
from imgsvc.runtime.metrics import Metrics
from imgsvc.domain.model import Recipe
from imgsvc.runtime.settings import Codec


async def ask():
    pool = CodecPool(Codec(workers=1), Metrics())
    await pool.start()
    with contextlib.suppress(ServiceError):
        await pool.encode(Task(Path(sys.argv[1]), Path(sys.argv[1] + ".out"), Recipe()))
    loaded = pool._workers[0]._executor.submit(eval, "sorted(__import__('sys').modules)")
    print(*loaded.result())
    pool.close()


if __name__ == "__main__":
    asyncio.run(ask())
"""


def workers() -> list[psutil.Process]:
    """The codec workers of this process: children of the process that forks them."""
    found = []
    for child in psutil.Process().children():
        if "multiprocessing.forkserver" in " ".join(child.cmdline()):
            found += child.children()
    return found


def opened_by(process: psutil.Process) -> list[str]:
    """What the file descriptors of a process stand for."""
    return [str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]


async def test_a_worker_holds_no_socket(service: Service, origin: Origin) -> None:
    """Redis, MongoDB and the bucket are connected while workers are forked and while they work."""
    await service.finished(await service.upload([[origin.url("rocket.jpg")]]))
    connected = {c.raddr.port for c in psutil.Process().net_connections() if c.raddr}
    settings = service.settings
    servers = {settings.redis.port, int(settings.mongo.uri.get_secret_value().split(":")[-1][:5])}
    assert servers <= connected
    assert workers()
    for worker in workers():
        assert worker.net_connections(kind="all") == []
        assert [what for what in opened_by(worker) if "socket" in what] == []


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What a program says whose worker is given a damaged TIFF."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.py").write_text(PROGRAM)
    whole = hostile.WHOLE["deflated tiff"]
    (folder / "damaged").write_bytes(whole[:20] + bytes(100) + whole[120:])
    return subprocess.run(
        [sys.executable, folder / "program.py", folder / "damaged"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_a_worker_has_no_clients(said: subprocess.CompletedProcess[str]) -> None:
    """Nor the memory that they would take: it does not import the program that it serves."""
    loaded = set(said.stdout.split())
    assert "imgsvc.imaging.codec" in loaded
    assert loaded.isdisjoint({"redis", "motor", "pymongo", "google.cloud.storage", "imgsvc.app"})


def test_a_worker_writes_nothing_into_the_log(said: subprocess.CompletedProcess[str]) -> None:
    """The TIFF library would tell of each damage, beside the lines that are JSON."""
    assert said.stderr == ""


@pytest.fixture
async def pool() -> AsyncIterator[CodecPool]:
    """One worker that may write 100 kB."""
    made = CodecPool(Codec(workers=1, max_output_bytes=100_000, task_s=5), Metrics())
    await made.start()
    yield made
    made.close()


NEEDS_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux protects processes so")

PROBES = {
    # what a decoder that is taken over might do -> the protection that refuses it
    "open('/etc/passwd')": "files",
    "open(f'/proc/{os.getppid()}/environ')": "files",
    "open('/proc/self/environ')": "files",
    "os.listdir('/')": "files",
    "os.listdir(os.path.dirname(FOLDER))": "files",
    "open('/tmp/left-behind', 'w')": "files",
    "os.symlink('/etc/passwd', FOLDER + '/link')": "files",
    "os.mkdir(FOLDER + '/sub')": "files",
    "socket.socket(socket.AF_INET)": "calls",
    "socket.socket(socket.AF_UNIX)": "calls",
    "socket.socketpair()": "calls",
    "os.execv('/bin/true', ['true'])": "calls",
    "os.kill(os.getppid(), 0)": "calls",
    "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)": "calls",
}


@pytest.fixture
async def caged(tmp_path: Path) -> AsyncIterator[CodecPool]:
    """One worker that works in a folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    made = CodecPool(Codec(workers=1), Metrics(), folder)
    await made.start()
    yield made
    made.close()


@NEEDS_LINUX
@pytest.mark.parametrize(("what", "by"), PROBES.items())
async def test_a_worker_can_do_nothing_but_its_work(
    caged: CodecPool, tmp_path: Path, what: str, by: str
) -> None:
    folder = tmp_path / "work"
    worker = caged._workers[0]
    if by not in worker.protections:
        pytest.skip(f"this kernel has no protection of {by}")
    assert worker._executor is not None
    named = {name: f"__import__('{name}')" for name in ("os", "socket", "resource")}
    setting = ", ".join(f"{name}={code}" for name, code in named.items())
    probe = f"(lambda FOLDER, os, socket, resource: {what})(FOLDER={str(folder)!r}, {setting})"
    with pytest.raises(PermissionError):
        worker._executor.submit(eval, probe).result()
    assert worker._executor.submit(eval, "1").result() == 1, "and it goes on"


SIGNALLING = {"x86_64": (62, 200, 129, 297), "aarch64": (129, 130, 138, 240)}
"""Numbers of kill, tkill, rt_sigqueueinfo and rt_tgsigqueueinfo."""


@NEEDS_LINUX
@pytest.mark.parametrize("number", SIGNALLING.get(platform.machine(), ()))
async def test_a_worker_sends_nobody_a_signal(caged: CodecPool, number: int) -> None:
    worker = caged._workers[0]
    if "calls" not in worker.protections:
        pytest.skip("this kernel has no protection of calls")
    assert worker._executor is not None
    probe = "(lambda ct: (ct.CDLL(None, use_errno=True).syscall({}, {}, 0, 0), ct.get_errno()))"
    probe = probe.format(number, "__import__('os').getppid()") + "(__import__('ctypes'))"
    assert worker._executor.submit(eval, probe).result() == (-1, errno.EPERM)


@NEEDS_LINUX
async def test_a_worker_does_its_work_in_its_folder_and_nowhere_else(
    caged: CodecPool, tmp_path: Path, origin: Origin
) -> None:
    folder = tmp_path / "work"
    (folder / "in").write_bytes(origin.photo("rocket.jpg"))
    for recipe in (Recipe(), Recipe(format="webp"), Recipe(format="avif"), Recipe(format="png")):
        result = await caged.encode(Task(folder / "in", folder / "out", recipe))
        assert result.bytes_out == (folder / "out").stat().st_size
    (tmp_path / "other").write_bytes(origin.photo("rocket.jpg"))
    if "files" in caged._workers[0].protections:
        with pytest.raises(ServiceError):
            await caged.encode(Task(tmp_path / "other", folder / "out", Recipe()))


@NEEDS_LINUX
def test_nobody_of_the_same_user_reads_what_the_service_was_started_with() -> None:
    """As root it is to be seen only by what the kernel says of the process."""
    program = "from imgsvc.imaging import sandbox; import os; sandbox.hide(); print(sandbox.is_hidden(), os.stat('/proc/self/environ').st_uid)"
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["True", "0"]


@NEEDS_LINUX
async def test_it_is_logged_which_protections_are_in_force(
    start_service: type, capsys: pytest.CaptureFixture[str]
) -> None:
    await start_service()
    [line] = [each for each in capsys.readouterr().out.splitlines() if "codec.protected" in each]
    assert "no_new_privileges" in line
    assert "service_hidden=True" in line


async def test_a_worker_is_limited_by_the_system(pool: CodecPool, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"no picture")
    with pytest.raises(ServiceError):
        await pool.encode(Task(tmp_path / "small", tmp_path / "out", Recipe()))
    worker = psutil.Process(pool._workers[0]._pid)
    memory = Codec().memory_bytes
    assert worker.rlimit(psutil.RLIMIT_AS) == (memory, memory)
    assert worker.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert worker.rlimit(psutil.RLIMIT_FSIZE) == (100_000, 100_000)
    used = sum(worker.cpu_times()[:2])
    soft, _ = worker.rlimit(psutil.RLIMIT_CPU)
    assert used < soft <= used + 2 * 5 + 1


async def test_the_time_limit_counts_from_each_task(pool: CodecPool, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"no picture")
    task = Task(tmp_path / "small", tmp_path / "out", Recipe())
    worker = pool._workers[0]
    executor = worker._executor
    assert executor is not None
    with pytest.raises(ServiceError):
        await pool.encode(task)
    first, _ = psutil.Process(worker._pid).rlimit(psutil.RLIMIT_CPU)
    executor.submit(eval, "sum(range(160_000_000))").result()  # two seconds or more
    with pytest.raises(ServiceError):
        await pool.encode(task)
    second, most = psutil.Process(worker._pid).rlimit(psutil.RLIMIT_CPU)
    assert second > first
    assert most == resource.RLIM_INFINITY


async def test_a_result_that_would_fill_the_spool_is_refused(
    pool: CodecPool, tmp_path: Path
) -> None:
    """A worker may write only so much, and it goes on."""
    noise = Image.effect_noise((400, 400), 80)
    noise.save(tmp_path / "noise", "JPEG", quality=20)
    assert (tmp_path / "noise").stat().st_size < 100_000
    worker = pool._workers[0]._pid
    with pytest.raises(ServiceError) as caught:
        await pool.encode(Task(tmp_path / "noise", tmp_path / "out", Recipe(format="png")))
    assert caught.value.code is ErrorCode.TOO_LARGE
    assert "100,000 bytes" in caught.value.detail
    assert not (tmp_path / "out").exists()
    result = await pool.encode(Task(tmp_path / "noise", tmp_path / "out", Recipe()))
    assert result.bytes_out == (tmp_path / "out").stat().st_size
    assert pool._workers[0]._pid == worker


async def test_such_a_result_fails_its_image_alone_and_leaves_no_file(
    start_service: type, origin: Origin
) -> None:
    service: Service = await start_service(codec={"max_output_bytes": 50_000})
    urls = [origin.url("coffee.png"), origin.url("rocket.jpg")]
    done = await service.finished(await service.upload([urls], options={"format": "keep"}))
    large, small = await service.images(done["requestId"])
    assert large["error"]["code"] == "TOO_LARGE"
    assert small["status"] == "COMPLETED"
    (folder,) = service.settings.spool.dir.iterdir()
    assert [file.name for file in folder.iterdir()] == [".lock"]
