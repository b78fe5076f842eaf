"""A file system of a few megabytes, to be filled and made read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["SmallDisk", "small_disk"]


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave not a byte free."""
        with self._ballast.open("wb", buffering=0) as stream:
            for size in (1 << 16, 1 << 10, 1):
                try:
                    while True:
                        stream.write(b"\0" * size)
                except OSError:
                    continue

    def empty(self) -> None:
        """Give back what ``fill`` took."""
        self._ballast.unlink()

    def remount(self, mode: str) -> None:
        """``ro`` or ``rw``."""
        run("mount", "-o", f"remount,{mode}", str(self.path))


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount one; tests skip where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root alone")
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=0755"
    mounted = run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path), check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        run("umount", "-l", str(path), check=False)


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=check, capture_output=True, text=True)
