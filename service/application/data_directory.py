"""The data directory: made, private, and used by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from resight.errors import FailedPrecondition

__all__ = ["UNFINISHED_RESTORE", "DataDirectory"]

# There while a restore is under way, and after one that was killed.
UNFINISHED_RESTORE = "restore-not-finished.json"


class DataDirectory:
    """Holds the directory's lock until closed; the system frees it when the process dies.

    Index files and the replica's identity are one process's; and two over one SQLite catalog would
    each answer from an index that misses the other's crops.

    Args:
        path: Made when missing.
        restoring: Whether it may hold a restore that was not finished.

    Raises:
        FailedPrecondition: the directory cannot be written, another process uses it, or a restore
            was not finished.
    """

    def __init__(self, path: Path, *, restoring: bool = False) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FailedPrecondition(
                f"data_dir {path} cannot be written ({error}); give this user the right to, or "
                "choose another with --data",
                field="data_dir",
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._handle, 20, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise FailedPrecondition(
                f"data_dir {path} is in use by process {owner or 'unknown'}; stop it, or choose "
                "another directory with --data",
                field="data_dir",
                reason="DATA_DIRECTORY_IN_USE",
            ) from error
        if not restoring and (path / UNFINISHED_RESTORE).exists():
            os.close(self._handle)
            raise FailedPrecondition(
                f"data_dir {path}: restore not finished, so it holds a part of a snapshot only; "
                "run `resight gallery restore` again",
                field="data_dir",
                reason="RESTORE_NOT_FINISHED",
            )
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let others use the directory."""
        os.close(self._handle)
