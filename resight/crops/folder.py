"""A folder of crops, searched recursively.

Every regular file is considered, but for hidden ones and manifests (CSV, Parquet). Cameras are
read from file names in the style of Market-1501 (``0002_c1s1_000451_03.jpg`` is camera ``c1``);
the number before it, an identity in that data set, is not read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from resight.crops.crop import CropRef, SkippedCrop
from resight.crops.faults import Fault

__all__ = ["MANIFEST_SUFFIXES", "camera_of", "list_folder"]

MANIFEST_SUFFIXES = frozenset({".csv", ".parquet"})
_MARKET_NAME = re.compile(r"-?\d+_c(\d+)(?=[s_.])")


def camera_of(name: str) -> str | None:
    """Camera id in a Market-1501 style file name (``c1``), or None."""
    match = _MARKET_NAME.match(name)
    return None if match is None else f"c{int(match.group(1))}"


def list_folder(root: Path) -> Iterator[CropRef | SkippedCrop]:
    """Yields every candidate below a folder, and every entry that cannot be one."""
    unreadable: list[OSError] = []
    real_root = root.resolve()
    for folder, folders, names in os.walk(root, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            link = Path(folder, name)
            if link.is_symlink():
                yield SkippedCrop(link, Fault.LINKED_FOLDER, "links to folders are not followed")
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() in MANIFEST_SUFFIXES:
                continue
            fault = entry_fault(path, real_root)
            yield fault or CropRef(path, camera=camera_of(name))
    for error in unreadable:
        yield SkippedCrop(Path(str(error.filename)), Fault.UNREADABLE, error.strerror or "")


def entry_fault(path: Path, real_root: Path) -> SkippedCrop | None:
    """What keeps a path from being read as a crop below ``real_root``, if anything does."""
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except FileNotFoundError:
        return SkippedCrop(path, Fault.MISSING, "no such file")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        return SkippedCrop(path, Fault.UNREADABLE, str(error))
    if not real.is_relative_to(real_root):
        return SkippedCrop(path, Fault.OUTSIDE, f"links to {real}, outside {real_root}")
    if not stat.S_ISREG(mode):
        return SkippedCrop(path, Fault.NOT_A_FILE)
    return None
