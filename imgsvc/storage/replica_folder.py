"""A folder for each replica, locked while its process lives.

A folder that nobody locks belonged to a process that is gone. Its work is dealt again from the
ledger, so the folder is swept.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from imgsvc.runtime import logs

_LOCK = ".lock"


class ReplicaFolder:
    """The folder of one replica.

    Args:
        root: where the folders of all replicas are.
        replica: whose this one is.
    """

    def __init__(self, root: Path, replica: str) -> None:
        self.path = root / replica
        self._root = root
        self._lock_file: int | None = None
        self._log = logs.get("spool")

    def open(self) -> None:
        """Make and lock the folder, and sweep those of processes that are gone.

        Raises:
            OSError: the folder cannot be made or locked.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        root = os.open(self._root, os.O_RDONLY)
        try:
            # One process at a time: a folder that is not locked yet must not look abandoned.
            fcntl.flock(root, fcntl.LOCK_EX)
            self.path.mkdir(mode=0o700)
            self._lock_file = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for other in self._root.iterdir():
                if other != self.path and other.is_dir():
                    self._sweep(other)
        finally:
            os.close(root)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _sweep(self, folder: Path) -> None:
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except OSError:
            return  # its owner is just making or removing it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        else:
            shutil.rmtree(folder, ignore_errors=True)
            self._log.info("spool.swept", folder=folder.name)
        finally:
            os.close(lock)
