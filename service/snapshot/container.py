"""A snapshot as a folder or as one .tar: written under another name, then renamed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from resight.durable import flush_folder
from resight.errors import FailedPrecondition, NotFound, Unavailable
from service.snapshot.manifest import MANIFEST, FileEntry, Manifest, damaged

__all__ = ["SnapshotReader", "SnapshotWriter", "opened", "writing"]

CHUNK = 1024 * 1024
MAX_MANIFEST = 64 * 1024 * 1024


class SnapshotWriter:
    """Takes finished files; use ``writing``."""

    def __init__(
        self, folder: Path, archive: tarfile.TarFile | None, step: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.files: dict[str, FileEntry] = {}
        self._archive = archive
        self._step = step

    def path(self, name: str) -> Path:
        """Where to write a file of the snapshot."""
        folder = self.folder
        for part in Path(name).parts[:-1]:
            folder /= part
            folder.mkdir(exist_ok=True, mode=0o700)
        return self.folder / name

    def add(self, name: str) -> FileEntry:
        """A file is finished: flush it and take its digest."""
        path = self.folder / name
        with path.open("rb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entry = FileEntry(file.tell(), digest)
        if self._archive is not None:
            self._archive.add(path, name, filter=_anonymous)
            path.unlink()
        else:
            flush_folder(path.parent)
        self.files[name] = entry
        self._step(f"added {name}")
        return entry

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest; the last file."""
        self.path(MANIFEST).write_bytes(manifest.encode())
        self.add(MANIFEST)


@contextmanager
def writing(target: Path, *, step: Callable[[str], None]) -> Iterator[SnapshotWriter]:
    """A snapshot that gets its name when the block ends well, and is removed otherwise.

    What a killed process left of one with the same name is removed first.

    Args:
        target: A folder, or a file when its name ends in ``.tar``; must not exist.
        step: Called between any two steps.

    Raises:
        FailedPrecondition: the target exists.
        Unavailable: it cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise FailedPrecondition(
            f"{target} exists; a snapshot replaces nothing: name another with --output, or remove "
            "it",
            field="output",
            reason="SNAPSHOT_EXISTS",
        )
    try:
        with _work_folder(target) as work:
            inside = work / "snapshot"
            inside.mkdir(mode=0o700)
            finished = inside
            if target.suffix == ".tar":
                finished = work / "snapshot.tar"
                handle = os.open(finished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "r+b") as file:
                    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                        yield SnapshotWriter(inside, tar, step)
                    file.flush()
                    os.fsync(file.fileno())
            else:
                yield SnapshotWriter(inside, None, step)
                flush_folder(inside)
            step("flushed")
            # Whoever took the name meanwhile keeps it, as far as POSIX can tell.
            if target.exists():
                raise FailedPrecondition(
                    f"{target} has come into being meanwhile; name another with --output",
                    field="output",
                    reason="SNAPSHOT_EXISTS",
                )
            finished.rename(target)
            step("named")
            flush_folder(target.parent)
    except OSError as error:
        raise Unavailable(
            f"snapshot {target} cannot be written ({error}); make room, or name another place "
            "with --output",
            field="output",
            reason="SNAPSHOT_UNWRITABLE",
        ) from error


class SnapshotReader:
    """The files of a snapshot; use ``opened``."""

    def __init__(self, path: Path, archive: tarfile.TarFile | None) -> None:
        self.path = path
        self._archive = archive
        with self._open(MANIFEST) as file:
            self.manifest = Manifest.decode(file.read(MAX_MANIFEST), where=str(path))

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Read a file that the manifest names.

        Raises:
            DataLoss: it is missing.
        """
        with self._open(name) as file:
            yield file

    def verify(self, name: str, *, copy_to: Path | None = None) -> None:
        """Compare a file with its digest, and write what was read.

        Raises:
            DataLoss: it is missing, cut or altered.
        """
        entry, digest, size = self.manifest.files[name], hashlib.sha256(), 0
        with self._open(name) as file:
            copy = None if copy_to is None else copy_to.open("wb")
            try:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    if copy is not None:
                        copy.write(chunk)
                if copy is not None:
                    copy.flush()
                    os.fsync(copy.fileno())
            finally:
                if copy is not None:
                    copy.close()
        if (size, digest.hexdigest()) != (entry.size, entry.sha256):
            what = f"has {size} of {entry.size} bytes" if size != entry.size else "was altered"
            raise damaged(self.path, f"{name} {what}")

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        try:
            if self._archive is None:
                file: BinaryIO = (self.path / name).open("rb")
            else:
                found = self._archive.extractfile(name)
                if found is None:
                    raise KeyError(name)
                file = found  # type: ignore[assignment]
        except (FileNotFoundError, NotADirectoryError, KeyError) as error:
            raise damaged(self.path, f"{name} is missing") from error
        with file:
            yield file


@contextmanager
def opened(path: Path) -> Iterator[SnapshotReader]:
    """A snapshot to read.

    Raises:
        NotFound: there is none.
        FailedPrecondition: it has a newer format.
        DataLoss: it is damaged.
    """
    if not path.exists():
        raise NotFound(f"there is no snapshot at {path}; check the path", field="snapshot")
    try:
        if path.is_dir():
            yield SnapshotReader(path, None)
        else:
            with tarfile.open(path, "r:") as archive:
                yield SnapshotReader(path, archive)
    except (tarfile.TarError, EOFError) as error:
        raise damaged(path, f"it is no whole archive ({error})") from error


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target, locked while this process lives."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pattern = f".{target.name}.*.writing"
    for left_behind in target.parent.glob(pattern):
        with _locked(left_behind) as ours:
            if ours:
                shutil.rmtree(left_behind)
    work = target.parent / pattern.replace("*", secrets.token_hex(8))
    work.mkdir(mode=0o700)
    try:
        with _locked(work):
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of the machine that wrote it."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o600
    return info
