"""The spool: whole files or none, one folder for each process, and never more than its quota."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime.settings import Spool as SpoolSettings
from imgsvc.storage.spool import Spool
from tests.support import wait_until

ROOT = Path(__file__).parents[2]

OTHER = """
import sys
from pathlib import Path
from imgsvc.runtime.settings import Spool as SpoolSettings
from imgsvc.storage.spool import Spool

spool = Spool(SpoolSettings(dir=Path(sys.argv[1])), sys.argv[2])
spool.open()
spool.path("file").write_text("of another process")
print("ready", flush=True)
sys.stdin.read()
spool.close()
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    """Makes spools that are not open yet."""
    made: list[Spool] = []

    def spool(name: str = "me", **settings: int) -> Spool:
        made.append(Spool(SpoolSettings(dir=tmp_path / "spool", **settings), name))
        return made[-1]

    yield spool
    for each in made:
        each.close()


@pytest.fixture
def spool(make: Callable[..., Spool]) -> Spool:
    made = make()
    made.open()
    return made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process with a spool in the same folder; ends when its standard input does."""
    command = [sys.executable, "-c", OTHER, str(tmp_path / "spool"), "other"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


async def written(spool: Spool, *pieces: bytes) -> str:
    name = spool.new_name()
    async with spool.writing(name) as write:
        for piece in pieces:
            await write(piece)
    return name


async def break_off(
    spool: Spool, name: str, error: Exception, piece: bytes = b"x" * 100_000
) -> None:
    async with spool.writing(name) as write:
        await write(piece)
        raise error


def files(spool: Spool) -> list[str]:
    return sorted(p.name for p in spool.folder.iterdir() if p.name != ".lock")


# Files.


async def test_a_file_has_its_name_when_it_is_whole(spool: Spool) -> None:
    name = spool.new_name()
    async with spool.writing(name) as write:
        await write(b"one ")
        assert not spool.path(name).exists()
        await write(b"two")
    assert spool.path(name).read_bytes() == b"one two"
    assert files(spool) == [name]
    assert (spool.sources, spool.used_bytes) == (1, 7)


async def test_pieces_are_gathered_and_stay_in_order(spool: Spool) -> None:
    pieces = [bytes([number]) * 300_000 for number in range(9)]
    name = await written(spool, *pieces)
    assert spool.path(name).read_bytes() == b"".join(pieces)
    assert spool.used_bytes == 2_700_000


async def test_a_writer_that_is_cancelled_leaves_nothing(spool: Spool) -> None:
    name = spool.new_name()
    partial = spool.path(f"{name}.part")
    os.mkfifo(partial)  # its thread waits for a reader
    writing = asyncio.create_task(break_off(spool, name, OSError(), b"x" * 2_000_000))

    async def begun() -> bool:
        return spool.used_bytes > 0

    await wait_until(begun, "the thread has something to write")
    writing.cancel()
    reader = await asyncio.to_thread(partial.open, "rb")  # lets the thread go on
    with reader:
        await asyncio.to_thread(reader.read)
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert files(spool) == []


async def test_what_breaks_off_leaves_nothing(spool: Spool) -> None:
    name = spool.new_name()
    with pytest.raises(ZeroDivisionError):
        await break_off(spool, name, ZeroDivisionError())
    assert files(spool) == []
    assert (spool.sources, spool.used_bytes, spool.unheld()) == (0, 0, set())


async def test_a_removed_file_is_gone_and_may_be_removed_again(spool: Spool) -> None:
    name = await written(spool, b"abc")
    for _ in range(2):
        await spool.remove(name)
        assert files(spool) == []
        assert (spool.sources, spool.used_bytes) == (0, 0)


async def test_names_never_meet(spool: Spool) -> None:
    assert len({spool.new_name() for _ in range(1000)}) == 1000


async def test_a_file_is_orphaned_if_neither_a_task_nor_a_lane_holds_it(spool: Spool) -> None:
    name = await written(spool, b"abc")
    assert spool.unheld() == set()
    spool.let_go(name)
    assert spool.unheld() == {name}
    await spool.remove(name)
    assert spool.unheld() == set()


async def test_files_of_other_processes_count(spool: Spool) -> None:
    name = spool.new_name()
    spool.path(name).write_bytes(b"by a worker")
    spool.count(name, 11)
    assert (spool.sources, spool.results, spool.used_bytes) == (0, 1, 11)
    await written(spool, b"source")
    assert (spool.sources, spool.results, spool.used_bytes) == (1, 1, 17)
    await spool.remove(name)
    assert (spool.sources, spool.results, spool.used_bytes) == (1, 0, 6)


async def test_a_file_that_is_worked_on_is_not_orphaned(spool: Spool) -> None:
    name = await written(spool, b"abc")
    spool.let_go(name)
    with spool.holding(name):
        assert spool.unheld() == set()
    assert spool.unheld() == {name}
    await spool.remove(name)


async def test_an_empty_source_is_a_file_like_any_other(spool: Spool) -> None:
    name = await written(spool)
    spool.let_go(name)
    assert (spool.sources, spool.unheld()) == (1, {name})
    await spool.remove(name)
    assert spool.sources == 0


async def test_a_write_that_fails_when_its_writer_was_cancelled_is_no_news(spool: Spool) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    name = spool.new_name()
    partial, reader = spool.path(f"{name}.part"), spool.path("reader")
    os.mkfifo(partial)  # who opens it waits for a reader
    os.link(partial, reader)

    async def write() -> None:
        async with spool.writing(name) as piece:
            await piece(b"abc")

    writing = asyncio.create_task(write())

    async def waits() -> bool:
        return spool.used_bytes == 3

    await wait_until(waits, "the thread opens the file")
    partial.unlink()  # so that it cannot be given its name
    writing.cancel()
    end = await asyncio.to_thread(os.open, reader, os.O_RDONLY)
    await asyncio.gather(writing, return_exceptions=True)
    os.close(end)
    del writing
    gc.collect()
    assert told == []


# The quota.


async def test_a_full_spool_says_so_until_something_goes(make: Callable[..., Spool]) -> None:
    spool = make(quota_bytes=10)
    spool.open()
    freed: list[bool] = []
    spool.on_freed["test"] = lambda: freed.append(spool.is_full)
    await written(spool, b"x" * 9)
    assert not spool.is_full
    name = await written(spool, b"x")
    assert spool.is_full
    await spool.remove(name)
    assert freed == [False]


async def test_a_file_counts_while_it_is_written(make: Callable[..., Spool]) -> None:
    spool = make(quota_bytes=10)
    spool.open()
    async with spool.writing(spool.new_name()) as write:
        await write(b"x" * 10)
        assert spool.is_full


# The disk is full: /dev/full takes everything and keeps nothing.

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@needs_dev_full
@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_a_full_disk_is_a_matter_of_time_and_leaves_nothing(spool: Spool, size: int) -> None:
    name = spool.new_name()
    spool.path(f"{name}.part").symlink_to("/dev/full")
    with pytest.raises(ServiceError) as caught:
        async with spool.writing(name) as write:
            await write(b"x" * size)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert files(spool) == []
    assert (spool.sources, spool.used_bytes) == (0, 0)


async def test_a_file_that_cannot_be_opened_is_a_matter_of_time(spool: Spool) -> None:
    name = spool.new_name()
    spool.path(f"{name}.part").mkdir()  # in the way, as a limit on open files is
    with pytest.raises(ServiceError) as caught:
        async with spool.writing(name):
            pass
    assert caught.value.code is ErrorCode.UNAVAILABLE
    spool.path(f"{name}.part").rmdir()


async def test_errors_of_the_network_are_not_taken_for_a_full_disk(spool: Spool) -> None:
    with pytest.raises(ConnectionResetError):
        await break_off(spool, spool.new_name(), ConnectionResetError())
    assert files(spool) == []


# Folders.


def test_a_folder_is_for_its_owner_alone(spool: Spool) -> None:
    assert spool.folder.stat().st_mode & 0o777 == 0o700


def test_closing_removes_the_folder(spool: Spool) -> None:
    spool.path("file").touch()
    spool.close()
    assert not spool.folder.exists()


def test_folders_of_processes_that_live_stay(
    make: Callable[..., Spool], other: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert other.poll() is None
    spool = make()
    spool.open()
    assert (tmp_path / "spool/other/file").exists()
    other.communicate()
    assert not (tmp_path / "spool/other").exists()


def test_folders_of_processes_that_were_killed_are_swept(
    make: Callable[..., Spool], other: subprocess.Popen[str], tmp_path: Path
) -> None:
    other.kill()
    other.wait()
    assert (tmp_path / "spool/other/file").exists()
    make().open()
    assert [p.name for p in (tmp_path / "spool").iterdir()] == ["me"]


def test_two_processes_cannot_have_one_folder(
    make: Callable[..., Spool], other: subprocess.Popen[str]
) -> None:
    assert other.poll() is None
    with pytest.raises(FileExistsError):
        make("other").open()
