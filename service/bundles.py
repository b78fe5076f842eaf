"""The archives of registered bundles: a folder, one file an archive, named by its digest."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from resight.durable import flush_folder
from resight.errors import FailedPrecondition
from service.private_files import make_private_folder

__all__ = ["BundleShelf", "Incoming"]

_INCOMING = ".incoming"


class Incoming:
    """An archive being received; ``path`` is gone when the upload ends, unless it was shelved."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.size = 0
        self._stream = stream
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._stream.write(data)
        self._digest.update(data)
        self.size += len(data)

    def complete(self) -> bytes:
        """Flush to disk; returns the SHA-256 of everything written, 32 bytes."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._digest.digest()


class BundleShelf:
    """Archives by gallery and digest. Blocking.

    Raises:
        FailedPrecondition: the folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        try:
            make_private_folder(self._incoming)
            for left_behind in self._incoming.iterdir():
                left_behind.unlink()
        except OSError as error:
            raise FailedPrecondition(
                f"data_dir: the folder {root} cannot be written ({error}); give this user the "
                "right to",
                field="data_dir",
            ) from error

    @contextmanager
    def receiving(self) -> Iterator[Incoming]:
        """A place to write an archive to, readable by this user only."""
        path = self._incoming / f"{secrets.token_hex(16)}.tar"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                yield Incoming(path, stream)
        finally:
            path.unlink(missing_ok=True)

    def shelve(self, incoming: Incoming, gallery: str, sha256: bytes) -> None:
        """Give a complete archive its name; it is there whole and for good, or not at all."""
        target = self.path(gallery, sha256)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700)
            flush_folder(self._root)
        incoming.path.rename(target)
        flush_folder(target.parent)

    def path(self, gallery: str, sha256: bytes) -> Path:
        """Where an archive lies."""
        return self._root / gallery / f"{sha256.hex()}.tar"

    def remove(self, gallery: str, sha256: bytes) -> None:
        """Take an archive away; nothing happens when it is not there."""
        self.path(gallery, sha256).unlink(missing_ok=True)

    def sweep(self, known: Collection[tuple[str, bytes]]) -> int:
        """Remove archives that no model names, left by a crash; returns how many."""
        kept = {self.path(gallery, sha256) for gallery, sha256 in known}
        orphans = [path for path in self._root.glob("*/*.tar") if path not in kept]
        for path in orphans:
            path.unlink()
        return len(orphans)
