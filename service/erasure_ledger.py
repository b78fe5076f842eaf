"""The erasure ledger: which stored crops were erased, kept apart from whatever a backup holds.

A catalog that is restored from before an erasure has the crop again; the ledger knows that it must
go. Each process appends to a file of its own, ``NAME.ledger``, one line an erasure:

    GALLERY CROP_ID BLOB_ID MICROSECONDS CRC32

``BLOB_ID`` names the stored instance: a crop ingested again under the same id is another one. The
line is on the disk before the deletion commits, so the ledger may name a crop whose deletion
failed, and never lacks one whose deletion was acknowledged. Ids and times only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Never
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event

from resight.durable import flush_folder
from resight.errors import FailedPrecondition, Unavailable
from service.domain.instant import from_micros, to_micros
from service.private_files import make_private_folder

__all__ = ["Erasure", "ErasureLedger", "erased_blobs", "erasures", "process_name"]

SUFFIX = ".ledger"
BLOCK = 10_000

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_LINE = re.compile(
    rb"([a-z0-9][a-z0-9._-]{0,62}) ([0-9a-f]{32}) ([0-9a-f]{32}) (-?[0-9]{1,18}) ([0-9a-f]{8})",
    re.ASCII,
)


class Erasure(NamedTuple):
    """One erased crop; ``blob_id`` is the identity of the stored instance."""

    gallery: str
    crop_id: UUID
    blob_id: UUID
    time: datetime


class ErasureLedger:
    """The file that this process appends to; one thread does.

    Args:
        folder: Made when missing; it outlives every restore.
        name: Of the process: no two that run at the same time share one.

    Raises:
        FailedPrecondition: the folder cannot be written, the file is in use by another process or
            is damaged.
    """

    def __init__(self, folder: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a ledger: use 1 to 64 of [A-Za-z0-9._-]")
        self.path = folder / f"{name}{SUFFIX}"
        self._noted: WeakKeyDictionary[Connection, list[Erasure]] = WeakKeyDictionary()
        try:
            make_private_folder(folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._handle = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise FailedPrecondition(
                f"erasures_dir: the ledger {self.path} cannot be written ({error}); give this user "
                "the right to, or choose another folder",
                field="erasures_dir",
            ) from error
        try:
            self._lock()
            self._size = self._mended()
            flush_folder(folder)
            flush_folder(folder.parent)
        except BaseException:
            os.close(self._handle)
            raise

    def append(self, entries: Sequence[Erasure]) -> None:
        """Add lines; they are durable when this returns.

        Raises:
            Unavailable: they cannot be written; the file is as it was before.
        """
        data = b"".join(map(_line, entries))
        try:
            # A failed append that could not be undone would be glued to the next line.
            if os.fstat(self._handle).st_size != self._size:
                os.ftruncate(self._handle, self._size)
            written = 0
            while written < len(data):
                written += os.write(self._handle, data[written:])
            os.fsync(self._handle)
        except OSError as error:
            self._undo()
            raise Unavailable(
                "the erasure ledger cannot be written, so nothing was deleted; make room or mend "
                "the disk",
                detail=f"{self.path}: {error}",
                field="erasures_dir",
                reason="ERASURE_LEDGER_UNWRITABLE",
            ) from error
        self._size += len(data)

    def note(self, connection: Connection, entry: Erasure) -> None:
        """Append the entry just before the connection's transaction commits, together with
        whatever else that transaction erases; when that fails, the commit fails, and
        ``engine.begin()`` rolls back.
        """
        noted = self._noted.get(connection)
        if noted is None:
            self._noted[connection] = noted = []
            event.listen(connection, "commit", self._committing)
        noted.append(entry)

    def close(self) -> None:
        """Let another process use the file."""
        os.close(self._handle)

    def _committing(self, connection: Connection) -> None:
        entries = self._noted.get(connection)
        if entries:
            self.append(entries)
            entries.clear()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FailedPrecondition(
                f"the erasure ledger {self.path} is in use by another process; give each replica "
                "a folder or a name of its own",
                field="erasures_dir",
                reason="ERASURE_LEDGER_IN_USE",
            ) from error

    def _mended(self) -> int:
        """The file's size without a line that a crash cut off."""
        whole = sum(len(line) + 1 for line in _lines(self.path))
        size = os.fstat(self._handle).st_size
        if size == whole - 1:
            # Only its end of line is missing.
            os.write(self._handle, b"\n")
        elif size > whole:
            os.ftruncate(self._handle, whole)
        os.fsync(self._handle)
        return whole

    def _undo(self) -> None:
        try:
            os.ftruncate(self._handle, self._size)
        except OSError:  # tried again before the next line
            return


def process_name(data_dir: Path) -> str:
    """The name of the process that uses a data directory, the same at every start."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40]
    return f"{host}-{hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:16]}"


def erasures(folder: Path) -> Iterator[Erasure]:
    """Every entry of every file of a folder, oldest first in each.

    Raises:
        FailedPrecondition: a line is damaged or a file cannot be read.
    """
    for path in _files(folder):
        for line in _lines(path):
            gallery, crop_id, blob_id, micros, _ = line.decode("ascii").split(" ")
            yield Erasure(gallery, UUID(crop_id), UUID(blob_id), from_micros(int(micros)))


def erased_blobs(folder: Path, *, block: int = BLOCK) -> Iterator[list[UUID]]:
    """The blob ids of all entries, in blocks.

    Raises:
        FailedPrecondition: as ``erasures``.
    """
    found: list[UUID] = []
    for path in _files(folder):
        for line in _lines(path):
            start = line.index(b" ") + 34
            found.append(UUID(bytes=bytes.fromhex(line[start : start + 32].decode("ascii"))))
            if len(found) == block:
                yield found
                found = []
    if found:
        yield found


def _line(entry: Erasure) -> bytes:
    text = (
        f"{entry.gallery} {entry.crop_id.hex} {entry.blob_id.hex} {to_micros(entry.time)}"
    ).encode("ascii")
    return text + b" %08x\n" % zlib.crc32(text)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, without their ends, each checked; less one that a crash cut off.

    A crash leaves the beginning of the last line, or zeros where its bytes did not arrive. A line
    that is complete and wrong was altered, and nobody knows whose erasure it was.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.rstrip(b"\n")
                if _is_whole(text):
                    yield text
                elif _is_torn(line):
                    return
                else:
                    _refuse(path, number)
    except OSError as error:
        raise FailedPrecondition(
            f"the erasure ledger {path} cannot be read ({error}); give this user the right to",
            field="erasures_dir",
        ) from error


def _is_whole(text: bytes) -> bool:
    # The form of a line whose sum is right need not be looked at: a start reads a million.
    return text[-9:-8] == b" " and b"%08x" % zlib.crc32(text[:-9]) == text[-8:]


def _is_torn(line: bytes) -> bool:
    if line.endswith(b"\n"):
        return False
    return b"\0" in line or _LINE.match(line) is None


def _refuse(path: Path, number: int) -> Never:
    raise FailedPrecondition(
        f"line {number} of the erasure ledger {path} is damaged, so it is not known whose erasure "
        "it was; put a sound copy of the file in its place (or, when there is none, remove that "
        "line: what it erased stays erased unless the catalog was restored from before it)",
        field="erasures_dir",
        reason="ERASURE_LEDGER_DAMAGED",
    )
