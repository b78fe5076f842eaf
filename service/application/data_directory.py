"""The data directory: made, private, and used by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from resight.errors import FailedPrecondition

__all__ = ["DataDirectory"]


class DataDirectory:
    """Holds the directory's lock until closed; the system frees it when the process dies.

    Two services over one catalog would each answer from an index that misses the other's crops.

    Raises:
        FailedPrecondition: the directory cannot be written, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
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
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let others use the directory."""
        os.close(self._handle)
