"""Blob stores: crop images in a folder, or anywhere fsspec reaches."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import unquote, urlsplit

from resight.durable import flush_folder
from resight.errors import FailedPrecondition, InvalidArgument
from service.domain.ports import BlobStore
from service.file_systems import open_file_system
from service.private_files import make_private_folder

__all__ = ["FolderBlobStore", "RemoteBlobStore", "open_blob_store"]

_TEMPORARY = ".writing"
# Requests under way at a time; drivers keep no more connections than ten.
_REMOVED_AT_A_TIME = 8


class FolderBlobStore:
    """Images as files of a folder, readable by this user only.

    A file is written and flushed under a temporary name, then renamed, then the folder that
    names it is flushed: it is there whole and for good, or not at all.

    Args:
        root: The folder.
        beside: Another process may be writing to it: what is half written is left alone.
    """

    def __init__(self, root: Path, *, beside: bool = False) -> None:
        self._root = root
        self._temporary = root / _TEMPORARY
        if beside:
            return
        try:
            make_private_folder(self._temporary)
            self._forget_half_written()
        except OSError as error:
            raise FailedPrecondition(
                f"blob_url: the folder {root} cannot be written ({error}); give this user the "
                "right to, or choose another folder",
                field="blob_url",
            ) from error

    def _forget_half_written(self) -> None:
        """Remove what a crash left behind, not what another process is writing to this folder."""
        for path in self._temporary.iterdir():
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                continue
            finally:
                os.close(handle)

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes whole; durable when this returns."""
        self.put_all([(key, data)])

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        """Store many; durable when this returns. Written first and flushed then, they share much
        of what a journal writes.
        """
        targets = [self._path(key) for key, _ in blobs]
        token = secrets.token_hex(16)
        temporary = [self._temporary / f"{token}-{number}" for number in range(len(blobs))]
        try:
            with ExitStack() as open_files:
                handles = [
                    _written(path, data, open_files)
                    for path, (_, data) in zip(temporary, blobs, strict=True)
                ]
                for handle in handles:
                    os.fsync(handle)
                for path, target in zip(temporary, targets, strict=True):
                    self._rename(path, target)
            for folder in {target.parent for target in targets}:
                flush_folder(folder)
        except BaseException:
            for path in temporary:
                path.unlink(missing_ok=True)
            raise

    def get(self, key: str) -> bytes:
        """The bytes; raises KeyError when there are none."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError as error:
            raise KeyError(key) from error

    def delete(self, key: str) -> None:
        """Remove the bytes, durably."""
        self.delete_all([key])

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove many, durably; they share the flushes of their folders."""
        folders = set()
        for key in keys:
            path = self._path(key)
            path.unlink(missing_ok=True)
            # Of one that is gone as well: who removed it may have failed before the flush.
            folders.add(path.parent)
        for folder in sorted(folders):
            if folder.is_dir():
                flush_folder(folder)

    def keys(self) -> Iterator[str]:
        """Every stored key."""
        for folder, subfolders, files in os.walk(self._root):
            if Path(folder) == self._root and _TEMPORARY in subfolders:
                subfolders.remove(_TEMPORARY)
            relative = Path(folder).relative_to(self._root)
            for name in files:
                yield (relative / name).as_posix()

    def _rename(self, temporary: Path, target: Path) -> None:
        try:
            temporary.rename(target)
        except FileNotFoundError:
            self._make_folder(target.parent)
            temporary.rename(target)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True, mode=0o700)
            flush_folder(folder.parent)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..", _TEMPORARY) for part in parts):
            raise InvalidArgument(f"{key!r} is not a key of the blob store", field="key")
        return self._root.joinpath(*parts)


def _written(path: Path, data: bytes, open_files: ExitStack) -> int:
    """A new file, written and not yet flushed, which is closed with ``open_files``."""
    while True:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        open_files.callback(os.close, handle)
        # Until it has its name; the system frees the lock when the process dies.
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            break
        # A process that began just now took it, not yet locked, for what a crash left.
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]
    return handle


class RemoteBlobStore:
    """Images as objects of an fsspec file system whose single writes are atomic, such as S3.

    Whatever its driver raises is an OSError here.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, root = open_file_system(url)
        except (ImportError, ValueError) as error:
            raise InvalidArgument(
                f"blob_url {_shown(url)} cannot be used ({error}); check its scheme and install "
                "the fsspec package of that store",
                field="blob_url",
            ) from error
        self._root = str(root).rstrip("/")

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes whole."""
        with _told():
            self._files.pipe_file(self._path(key), data)

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        """Store many, side by side where the file system can."""
        with _told():
            self._files.pipe({self._path(key): data for key, data in blobs})

    def get(self, key: str) -> bytes:
        """The bytes; raises KeyError when there are none."""
        try:
            with _told():
                data: Any = self._files.cat_file(self._path(key))
        except FileNotFoundError as error:
            raise KeyError(key) from error
        return bytes(data)

    def delete(self, key: str) -> None:
        """Remove the bytes."""
        try:
            with _told():
                self._files.rm_file(self._path(key))
        except FileNotFoundError:
            return

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove many, some at a time, each by a request of its own: of many in one request drivers
        do not say which the store has refused. After one has failed no other is begun.
        """
        failed = Event()

        def remove(key: str) -> None:
            if failed.is_set():
                return
            try:
                self.delete(key)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(_REMOVED_AT_A_TIME) as threads:
            for _ in threads.map(remove, keys):
                pass

    def keys(self) -> Iterator[str]:
        """Every stored key."""
        prefix = f"{self._root}/"
        with _told():
            # Drivers remember what they have listed, and others write there, too.
            self._files.invalidate_cache()
            found = self._files.find(self._root)
        for path in found:
            yield str(path).removeprefix(prefix)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


@contextmanager
def _told() -> Iterator[None]:
    """A driver's own errors (no connection, no credentials, …) as what a store raises."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _shown(url: str) -> str:
    """Without credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def open_blob_store(url: str, *, beside: bool = False) -> BlobStore:
    """The store behind a URL: ``file://`` or a bare path is a folder, the rest goes to fsspec.

    Args:
        url: Where.
        beside: As FolderBlobStore.

    Raises:
        InvalidArgument: the scheme is unknown or its package is missing.
        FailedPrecondition: the folder cannot be written.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return FolderBlobStore(Path(unquote(parts.path)).absolute(), beside=beside)
    return RemoteBlobStore(url)
