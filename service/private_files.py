"""What the service writes is its user's alone, in a directory that others may enter as well."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["exposure", "make_private_file", "make_private_folder"]


def make_private_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, for this user alone; what is there stays.

    Raises:
        OSError: it cannot be made.
    """
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=stat.S_IRWXU)


def make_private_file(path: str) -> None:
    """Make an empty file for this user alone, where there is none; whoever opens it says why not.

    What SQLite puts beside its file takes its rights from it.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR))


def _holds_people(entry: Path) -> bool:
    """Folders do, and the catalog; of a symbolic link the rights say nothing."""
    is_catalog = entry.name.startswith("catalog.")
    return not entry.is_symlink() and (is_catalog or entry.is_dir())


def exposure(data_dir: Path) -> str | None:
    """What in a data directory everybody may open, and the fix; None for nothing.

    That is somebody's copy, or what an older version made. Groups are left to who gave them their
    rights: Kubernetes opens all of a volume to the pod's.
    """
    try:
        if not data_dir.stat().st_mode & stat.S_IXOTH:
            return None  # nobody else gets that far
        found = sorted(
            entry.name
            for entry in data_dir.iterdir()
            if entry.lstat().st_mode & stat.S_IRWXO and _holds_people(entry)
        )
    except OSError:
        return None
    if not found:
        return None
    return (
        f"data_dir {data_dir}: everybody may open {', '.join(found[:5])}; stop what uses it and "
        f"run: chmod -R o-rwx {data_dir}"
    )
