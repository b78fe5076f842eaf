"""Putting a bundle's files in place: all of them or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from resight.bundle.archive import pack
from resight.durable import flush_folder

__all__ = ["place"]


def place(files: Mapping[str, bytes | Path], output: Path) -> None:
    """Writes a folder, or a ``.tar``, of exactly these files, in place of what was there.

    Args:
        files: By path inside the bundle: their bytes, or a file whose bytes are taken over.
        output: Absolute path.
    """
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        bundle = staging / "bundle"
        bundle.mkdir()
        for name, content in files.items():
            path = bundle / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                _take_over(content, path)
            else:
                _write(content, path)
        if output.suffix == ".tar":
            pack(bundle, output)
        else:
            _swap(bundle, output, staging / "replaced")
        flush_folder(output.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(content: bytes, path: Path) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _take_over(source: Path, path: Path) -> None:
    try:
        os.link(source, path)  # already on the disk, and weights are large
    except OSError:
        shutil.copyfile(source, path)


def _swap(bundle: Path, output: Path, aside: Path) -> None:
    # A folder with content cannot be replaced in one step: the old one is moved aside first.
    replaces = os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir()))
    if replaces:
        os.replace(output, aside)
    try:
        os.replace(bundle, output)
    except BaseException:
        if replaces:
            os.replace(aside, output)
        raise
