"""The spool: files of this replica that wait for the next actor."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import aiofiles.os

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.runtime.group_commit import GroupCommit
from imgsvc.runtime.settings import Spool as SpoolSettings
from imgsvc.storage.replica_folder import ReplicaFolder

# How much of a file is gathered before it is written; an origin may send one byte at a time.
_GATHERED_BYTES, _GATHERED_PIECES = 1024 * 1024, 256
# A trip to a thread costs ten times what removing a file does: under load removals go together.
_REMOVED_AT_ONCE, _REMOVE_EVERY_S = 64, 0.02


class Spool:
    """The files of one replica.

    Args:
        settings: where they are, and how many bytes they may have together.
        replica: whose they are.
    """

    def __init__(self, settings: SpoolSettings, replica: str) -> None:
        self._quota_bytes = settings.quota_bytes
        self._folder = ReplicaFolder(settings.dir, replica)
        self._sizes: dict[str, int] = {}
        self._held: set[str] = set()
        self._sources: set[str] = set()
        self._used_bytes = 0
        self._removals = GroupCommit[Path, None](_unlink, _REMOVED_AT_ONCE, _REMOVE_EVERY_S)
        self.on_freed: dict[str, Callable[[], None]] = {}
        """Called whenever a file is gone, by the name of who asked for it."""

    @property
    def folder(self) -> Path:
        """Where all files are."""
        return self._folder.path

    def open(self) -> None:
        """Make the folder, and sweep those of processes that are gone.

        Raises:
            OSError: the folder cannot be made or locked.
        """
        self._folder.open()

    def close(self) -> None:
        """Remove the folder with all files."""
        self._folder.close()

    def path(self, file: str) -> Path:
        """Where a file of the spool is."""
        return self.folder / file

    def new_name(self) -> str:
        """A name for a new file; it is held until ``let_go`` or ``remove``."""
        name = secrets.token_hex(12)
        self._held.add(name)
        return name

    @contextlib.contextmanager
    def holding(self, file: str) -> Iterator[None]:
        """Keep a file while it is worked on, whoever may have its message by now."""
        self._held.add(file)
        try:
            yield
        finally:
            self._held.discard(file)

    def let_go(self, file: str) -> None:
        """Stop holding a file, because a message in a lane keeps it now."""
        self._held.discard(file)

    def unheld(self) -> set[str]:
        """Files that nobody holds: each must have a message in a lane, or has lost it."""
        return set(self._sizes) - self._held

    @contextlib.asynccontextmanager
    async def writing(self, file: str) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
        """Write a file piece by piece; it gets its name only when it is whole.

        Pieces are gathered: a trip to a thread costs as much as writing a megabyte, and most
        files are smaller than that.

        Raises:
            ServiceError: UNAVAILABLE if it cannot be written.
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
        """Count the bytes of a file; call this for one that another process wrote here."""
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
        for freed in self.on_freed.values():
            freed()

    @property
    def sources(self) -> int:
        """Number of files that are being fetched or wait to be encoded."""
        return len(self._sources)

    @property
    def results(self) -> int:
        """Number of files that wait to be stored."""
        return len(self._sizes) - len(self._sources)

    @property
    def used_bytes(self) -> int:
        """Bytes in the spool."""
        return self._used_bytes

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be fetched for now."""
        return self.used_bytes >= self._quota_bytes


async def _append(partial: Path, pieces: Sequence[bytes], whole: Path | None = None) -> None:
    """Append to a file, and rename it to ``whole`` if that is given.

    Raises:
        ServiceError: UNAVAILABLE, to distinguish it from errors of the network: OSErrors as well.
    """
    writing = asyncio.ensure_future(_append_in_thread(partial, pieces, whole))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing})  # or the thread could make the file again after its removal
        if not writing.cancelled():
            writing.exception()  # nobody needs it any more
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
