"""An index as a folder of files, so that a start need not read every vector from the catalog.

The folder holds a file for each segment and a manifest that names them, each with its digest, and
the position of the log that they are up to. A write makes new segment files first, then replaces
the manifest, then removes what it does not name: whatever moment it is cut off at, the folder
reads as before or as after. The catalog is the system of record; whatever here is missing,
damaged or of another log is told and read from there again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from resight.durable import flush_folder
from service.gallery.index import Snapshot
from service.gallery.segment import Segment, SegmentView
from service.gallery.segment_file import SegmentFileError, read_segment, write_segment
from service.private_files import make_private_folder

__all__ = ["FORMAT", "IndexFolder", "LogMark", "Restored", "UnusableError"]

FORMAT = 1
MANIFEST = "manifest.json"
MAX_MANIFEST = 64 * 1024 * 1024
READERS = 4


Reason = Literal["none", "damaged", "newer_format", "other_index"]


@dataclass(frozen=True, slots=True)
class LogMark:
    """A position of a gallery's log and what stands there, by which the log is recognised."""

    position: int
    entry: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What could be read.

    Args:
        mark: The position it is up to.
        segments: Those that are as they were written.
        damaged: For each of the others its file and what is wrong.
    """

    mark: LogMark
    segments: list[Segment]
    damaged: Mapping[str, str] = field(default_factory=dict)


class UnusableError(Exception):
    """Nothing in the folder can be used.

    Args:
        reason: Stable, for metrics; ``none`` when there is no manifest.
        message: For the log.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class IndexFolder:
    """The files of one index; one thread uses it at a time.

    Args:
        path: Made with the first write.
        model_version: Of the encoder that made the vectors.
        dimension: Values a vector.
        step: Called between any two steps of a write.
    """

    def __init__(
        self,
        path: Path,
        *,
        model_version: str,
        dimension: int,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._model_version = model_version
        self._dimension = dimension
        self._step = step
        # What lies in the folder of the segments in memory: file and header digest.
        self._written: dict[int, tuple[int, int, str, str]] = {}

    def write(self, snapshot: Snapshot, mark: LogMark) -> int:
        """Make the folder hold the living rows of a snapshot; returns how many bytes were written.

        Files of segments that have not changed since they were written or read stay.

        Args:
            snapshot: Everything that the log says up to ``mark``, and perhaps more.
            mark: From where the log is read again.

        Raises:
            OSError: disk full, not writable.
        """
        make_private_folder(self.path)
        written: dict[int, tuple[int, int, str, str]] = {}
        entries: list[dict[str, Any]] = []
        size = 0
        for view in snapshot.views:
            if not view.living:
                continue
            known = self._written.get(view.serial)
            if known is None or known[:2] != (view.rows, view.dead):
                known = (view.rows, view.dead, *self._write_segment(view))
                size += (self.path / known[2]).stat().st_size
            written[view.serial] = known
            entries.append({"file": known[2], "rows": view.living, "header_sha256": known[3]})
        self._step("segments written")
        flush_folder(self.path)
        self._step("segments flushed")
        size += self._write_manifest(mark, entries)
        self._written = written
        self._sweep({name for _, _, name, _ in written.values()})
        return size

    def read(self, *, segment_rows: int) -> Restored:
        """What the folder holds, verified.

        Args:
            segment_rows: The last segment, which is filled further, gets room for so many.

        Raises:
            UnusableError: there is nothing, or nothing that can be used.
        """
        manifest = self._manifest()
        entries = manifest["segments"]
        # Hashing and first touching memory take longer than the disk.
        with ThreadPoolExecutor(READERS, "index-read") as pool:
            found = list(
                pool.map(
                    lambda place: self._read_segment(
                        entries[place], segment_rows if place == len(entries) - 1 else 0
                    ),
                    range(len(entries)),
                )
            )
        segments: list[Segment] = []
        damaged: dict[str, str] = {}
        self._written = {}
        for entry, segment in zip(entries, found, strict=True):
            name = str(entry["file"])
            if isinstance(segment, SegmentFileError):
                damaged[name] = str(segment)
                continue
            view = segment.view
            self._written[view.serial] = (view.rows, view.dead, name, entry["header_sha256"])
            segments.append(segment)
        mark = LogMark(int(manifest["position"]), str(manifest["entry"]))
        return Restored(mark, segments, damaged)

    def clear(self) -> None:
        """Remove every file of the folder, the manifest first."""
        self._written = {}
        if self.path.is_dir():
            (self.path / MANIFEST).unlink(missing_ok=True)
            flush_folder(self.path)
            self._sweep(set(), manifest=False)

    def _read_segment(self, entry: Mapping[str, Any], capacity: int) -> Segment | SegmentFileError:
        try:
            return read_segment(
                self.path / str(entry["file"]),
                header_digest=str(entry["header_sha256"]),
                dimension=self._dimension,
                capacity=capacity,
            )
        except SegmentFileError as error:
            return error

    def _write_segment(self, view: SegmentView) -> tuple[str, str]:
        """The name and header digest of the file made."""
        half = self.path / "segment.writing"
        try:
            digest = write_segment(half, view, step=self._step)
        except OSError:
            # The disk may be full of it.
            half.unlink(missing_ok=True)
            raise
        self._step("segment written")
        name = f"{digest[:32]}.segment"
        half.rename(self.path / name)
        self._step("segment named")
        return name, digest

    def _write_manifest(self, mark: LogMark, entries: list[dict[str, Any]]) -> int:
        body = {
            "format": FORMAT,
            "model_version": self._model_version,
            "dimension": self._dimension,
            "position": mark.position,
            "entry": mark.entry,
            "segments": entries,
        }
        data = json.dumps(body | {"sha256": _digest(body)}, indent=1).encode()
        half = self.path / "manifest.writing"
        with half.open("wb") as file:
            file.write(data)
            self._step("manifest written")
            file.flush()
            os.fsync(file.fileno())
        self._step("manifest flushed")
        half.rename(self.path / MANIFEST)
        self._step("manifest named")
        flush_folder(self.path)
        self._step("manifest durable")
        return len(data)

    def _sweep(self, kept: set[str], *, manifest: bool = True) -> None:
        for path in self._files():
            if path.name not in kept and not (manifest and path.name == MANIFEST):
                path.unlink(missing_ok=True)
                self._step("file removed")
        flush_folder(self.path)

    def _files(self) -> Iterator[Path]:
        """Ours: nobody else's file is touched."""
        for path in sorted(self.path.iterdir()):
            if path.suffix in {".segment", ".writing"} or path.name == MANIFEST:
                yield path

    def _manifest(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        try:
            if path.stat().st_size > MAX_MANIFEST:
                raise UnusableError("damaged", f"{path} is too large to be a manifest")
            manifest = json.loads(path.read_bytes())
            if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
                raise UnusableError("damaged", f"{path} is no manifest")
            if manifest["format"] > FORMAT:
                raise UnusableError(
                    "newer_format",
                    f"{path} has format {manifest['format']}, this version knows {FORMAT}",
                )
            if manifest.pop("sha256") != _digest(manifest):
                raise UnusableError("damaged", f"{path} is not as it was written")
        except FileNotFoundError as error:
            raise UnusableError("none", f"{path} does not exist") from error
        except (OSError, ValueError, KeyError, RecursionError) as error:
            raise UnusableError("damaged", f"{path} cannot be read ({error})") from error
        mine = (self._model_version, self._dimension)
        if (manifest["model_version"], manifest["dimension"]) != mine:
            raise UnusableError("other_index", f"{path} is of model {manifest['model_version']}")
        return manifest


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
