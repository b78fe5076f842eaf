"""Index files kept in step: written after so many changes, at the end, and when asked for."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import Connection

from resight.errors import ResightError, Unavailable
from service.application.galleries import Galleries, Gallery
from service.application.index_filling import Filled, fill
from service.catalog import log_reads
from service.catalog.records import GalleryRecord
from service.catalog.store import Catalog
from service.gallery.index import Snapshot
from service.gallery.index_folder import IndexFolder, LogMark
from service.telemetry import INDEX_WRITES

__all__ = ["IndexKeeper"]

logger = logging.getLogger(__name__)


class IndexKeeper:
    """The folders of all indexes, below ``root``: ``GALLERY/MODEL``, MODEL a digest of its version.

    Args:
        root: ``index`` in the data directory.
        catalog: Says which position of the log an index is up to.
        galleries: Those whose indexes are kept.
        segment_rows: As SegmentedIndex.
        changes: An index is written when so many rows were added or removed since the last time.
        interval: Seconds between two looks at that.
        step: Called between any two steps of a write.
    """

    def __init__(
        self,
        root: Path,
        *,
        catalog: Catalog,
        galleries: Galleries,
        segment_rows: int,
        changes: int,
        interval: float = 1.0,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._root = root
        self._catalog = catalog
        self._galleries = galleries
        self._segment_rows = segment_rows
        self._changes = changes
        self._interval = interval
        self._step = step
        self._thread = ThreadPoolExecutor(1, "index-files")
        self._folders: dict[int, IndexFolder] = {}
        # Changes of a gallery's index that its folder holds, by key of the gallery.
        self._held: dict[int, int] = {}

    def fill(self, gallery: Gallery) -> Filled:
        """Fill the empty index of a gallery; called once, before anything writes to it."""
        filled = fill(
            gallery.record,
            gallery.index,
            self._catalog,
            self._folder(gallery.record),
            segment_rows=self._segment_rows,
        )
        # What had to be read from the catalog is written like changes, soon.
        self._held[gallery.record.gallery_row] = (
            gallery.changes + filled.from_files - len(gallery.index)
        )
        return filled

    async def keep(self) -> None:
        """Write every index that is due, until cancelled; first those that had to be read from the
        catalog, so that a service that never ends well does not begin with old files for ever.
        """
        await self.write_all()
        while True:
            await asyncio.sleep(self._interval)
            for gallery in self._galleries.all():
                if self._behind(gallery) >= self._changes:
                    await self._tried(gallery)

    async def write_all(self) -> None:
        """Write every index that has changed; failures are logged, the catalog has everything."""
        for gallery in self._galleries.all():
            if self._behind(gallery):
                await self._tried(gallery)

    async def write(self, gallery: Gallery) -> None:
        """Write the index of a gallery now: when this returns, no file holds a removed row.

        Raises:
            Unavailable: it cannot be written, or the index has not caught up with the catalog.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._write, gallery)
        except OSError as error:
            INDEX_WRITES.labels("failed").inc()
            raise Unavailable(
                f"the index files of gallery {gallery.name!r} cannot be written ({error}); make "
                "room or mend the disk of the data directory",
                field="data_dir",
                reason="INDEX_FILES_UNWRITABLE",
            ) from error

    def close(self) -> None:
        """End the writing thread."""
        self._thread.shutdown()

    async def _tried(self, gallery: Gallery) -> None:
        try:
            await self.write(gallery)
        except ResightError as error:
            logger.error("gallery %s: %s", gallery.name, error)
        except Exception:
            INDEX_WRITES.labels("failed").inc()
            logger.exception("the index files of gallery %s could not be written", gallery.name)

    def _behind(self, gallery: Gallery) -> int:
        return gallery.changes - self._held.get(gallery.record.gallery_row, 0)

    def _write(self, gallery: Gallery) -> None:
        began = time.perf_counter()
        snapshot, mark, changes = self._captured(gallery)
        folder = self._folder(gallery.record)
        size = folder.write(snapshot, mark)
        self._forget_others(gallery.record)
        self._held[gallery.record.gallery_row] = changes
        INDEX_WRITES.labels("written").inc()
        logger.info(
            "gallery %s: index of %d vectors at change %d written, %.1f MB in %.2f s",
            gallery.name,
            snapshot.living,
            mark.position,
            size / 1e6,
            time.perf_counter() - began,
        )

    def _captured(self, gallery: Gallery) -> tuple[Snapshot, LogMark, int]:
        """An index and the position that it is up to, taken between two writes to the catalog.

        On the writer's thread, because there every commit is in the index before the next begins.
        """
        row = gallery.record.gallery_row

        def marked(connection: Connection) -> LogMark:
            position = log_reads.newest_position(connection, row)
            entry = log_reads.entry_at(connection, row, position)
            if entry is None:
                raise RuntimeError(f"the log of gallery {gallery.name!r} has no change {position}")
            return LogMark(position, entry)

        taken: list[tuple[Snapshot, int]] = []

        def look(_: LogMark) -> None:
            if gallery.caught_up:
                taken.append((gallery.index.snapshot, gallery.changes))

        mark = self._catalog.writer.change(marked, committed=look).result()
        if not taken:
            INDEX_WRITES.labels("behind").inc()
            raise Unavailable(
                f"the index of gallery {gallery.name!r} has not caught up with the catalog; it is "
                "tried again with the next change",
                reason="INDEX_BEHIND",
            )
        return taken[0][0], mark, taken[0][1]

    def _folder(self, record: GalleryRecord) -> IndexFolder:
        known = self._folders.get(record.model_row)
        if known is None:
            known = IndexFolder(
                self._root / record.name / _model_folder(record.model_version),
                model_version=record.model_version,
                dimension=record.dimension,
                step=self._step,
            )
            self._folders[record.model_row] = known
        return known

    def _forget_others(self, record: GalleryRecord) -> None:
        """Remove the files of models that no index here follows: they would outlive erasures."""
        kept = _model_folder(record.model_version)
        for path in sorted((self._root / record.name).iterdir()):
            if path.name != kept and path.is_dir():
                shutil.rmtree(path)


def _model_folder(version: str) -> str:
    return hashlib.sha256(version.encode()).hexdigest()[:32]
