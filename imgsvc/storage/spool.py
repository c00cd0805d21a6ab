"""The spool: files of this replica that wait for the next actor.

Every process has a folder of its own under ``[spool] dir``, locked while it lives. Folders that
nobody locks belonged to processes that are gone; their work is dealt again from the ledger, so
they are swept.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import aiofiles.os

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime import logs
from imgsvc.runtime.group_commit import GroupCommit
from imgsvc.runtime.settings import Spool as SpoolSettings

_LOCK = ".lock"
# Of one file, before they are written; an origin may send a byte at a time.
_GATHERED_BYTES, _GATHERED_PIECES = 1024 * 1024, 256
# Going to a thread and back costs ten times what removing a file does: under load these go together.
_REMOVED, _REMOVE_EVERY_S = 64, 0.02


class Spool:
    """The folder of one replica.

    Args:
        settings: where it is and how large it may grow.
        replica: whose it is.
    """

    def __init__(self, settings: SpoolSettings, replica: str) -> None:
        self._root = settings.dir
        self._quota_bytes = settings.quota_bytes
        self.folder = settings.dir / replica
        self._sizes: dict[str, int] = {}
        self._held: set[str] = set()
        self._sources: set[str] = set()
        self._used_bytes = 0
        self._removals = GroupCommit[Path, None](_unlink, _REMOVED, _REMOVE_EVERY_S)
        self.on_freed: dict[str, Callable[[], None]] = {}
        """Who wants to be told when a file is gone, by name."""
        self._lock_file: int | None = None
        self._log = logs.get("spool")

    def open(self) -> None:
        """Make and lock the folder, and sweep folders of processes that are gone.

        Raises:
            OSError: the folder cannot be made or locked.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        root = os.open(self._root, os.O_RDONLY)
        try:
            # One process at a time: a folder that is not locked yet must not look abandoned.
            fcntl.flock(root, fcntl.LOCK_EX)
            self.folder.mkdir(mode=0o700)
            self._lock_file = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for other in self._root.iterdir():
                if other != self.folder and other.is_dir():
                    self._sweep(other)
        finally:
            os.close(root)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _sweep(self, folder: Path) -> None:
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except OSError:
            return  # being made or being removed by its owner
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        else:
            shutil.rmtree(folder, ignore_errors=True)
            self._log.info("spool.swept", folder=folder.name)
        finally:
            os.close(lock)

    def path(self, file: str) -> Path:
        """Where a file of the spool is."""
        return self.folder / file

    def new_name(self) -> str:
        """A name for a file that is not there yet; held until ``let_go`` or ``remove``."""
        name = secrets.token_hex(12)
        self._held.add(name)
        return name

    @contextlib.contextmanager
    def holding(self, file: str) -> Iterator[None]:
        """Keep a file alive while it is worked on, whoever may have its message by now."""
        self._held.add(file)
        try:
            yield
        finally:
            self._held.discard(file)

    def let_go(self, file: str) -> None:
        """Say that a message in a lane refers to the file now, and keeps it alive."""
        self._held.discard(file)

    def unheld(self) -> set[str]:
        """Files that must have a message in a lane; those without have lost it."""
        return set(self._sizes) - self._held

    @contextlib.asynccontextmanager
    async def writing(self, file: str) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
        """Write a file piece by piece; it gets its name when it is whole, or is not there.

        Pieces are gathered: a trip to a thread costs as much as writing a megabyte, and most
        files are smaller than that.
        """
        partial = self.path(f"{file}.part")
        self._sources.add(file)
        self.count(file, 0)
        pieces: list[bytes] = []
        written = 0

        async def write(piece: bytes) -> None:
            nonlocal written
            pieces.append(piece)
            size = self._sizes[file] + len(piece)
            self.count(file, size)
            if size - written >= _GATHERED_BYTES or len(pieces) == _GATHERED_PIECES:
                await _append(partial, pieces)
                pieces.clear()
                written = size

        try:
            yield write
            await _append(partial, pieces, self.path(file))
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            self._forget(file)
            raise

    def count(self, file: str, size_bytes: int) -> None:
        """Take a file into account, such as one that another process wrote here."""
        self._used_bytes += size_bytes - self._sizes.get(file, 0)
        self._sizes[file] = size_bytes

    async def remove(self, file: str) -> None:
        """Remove a file; harmless if it is gone."""
        await self._removals.submit(self.path(file))
        self._forget(file)

    def _forget(self, file: str) -> None:
        self._used_bytes -= self._sizes.pop(file, 0)
        self._sources.discard(file)
        self._held.discard(file)
        for tell in self.on_freed.values():
            tell()

    @property
    def sources(self) -> int:
        """Files that were fetched, or are, and wait to be encoded."""
        return len(self._sources)

    @property
    def results(self) -> int:
        """Files that wait to be stored."""
        return len(self._sizes) - len(self._sources)

    @property
    def used_bytes(self) -> int:
        """Bytes in the spool."""
        return self._used_bytes

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be fetched for now."""
        return self.used_bytes >= self._quota_bytes


async def _append(partial: Path, pieces: Sequence[bytes], whole: Path | None = None) -> None:
    """Append to a file, and give it another name if it is whole now.

    Raises:
        ServiceError: UNAVAILABLE; told apart from errors of the network, which are OSErrors too.
    """
    writing = asyncio.ensure_future(_append_in_thread(partial, pieces, whole))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing})  # or the thread could make the file anew after its removal
        if not writing.cancelled():
            writing.exception()  # which is nobody's business any more
        raise
    except OSError as error:
        raise ServiceError(
            ErrorCode.UNAVAILABLE, "The spool cannot be written to.", retry_after_s=5
        ) from error


@aiofiles.os.wrap
def _append_in_thread(partial: Path, pieces: Sequence[bytes], whole: Path | None) -> None:
    with partial.open("ab") as out:
        out.writelines(pieces)
    if whole:
        partial.rename(whole)


@aiofiles.os.wrap
def _unlink(paths: Sequence[Path]) -> list[None]:
    for path in paths:
        path.unlink(missing_ok=True)
    return [None] * len(paths)
