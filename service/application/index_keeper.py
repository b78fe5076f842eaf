"""Index files kept in step: written after so many changes, at the end, and when asked for."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import Connection

from resight.errors import ResightError, Unavailable
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.index_filling import Filled, fill
from service.application.index_resuming import resume
from service.application.serving import Serving
from service.catalog import log_reads
from service.catalog.records import GalleryRecord
from service.catalog.store import Catalog
from service.domain.ports import GalleryIndex
from service.gallery.backend import segmented
from service.gallery.index import SegmentedIndex, Snapshot
from service.gallery.index_folder import IndexFolder, LogMark
from service.milvus.index import MilvusIndex
from service.telemetry import INDEX_WRITES

__all__ = ["IndexKeeper", "index_folder"]

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
        # Up to which change of the log the folder of a model is, by key of the model.
        self._held: dict[int, int] = {}
        # The models that alone have a folder, by key of the gallery.
        self._alone: dict[int, set[int]] = {}

    def fill(self, connection: Connection, serving: Serving) -> Filled:
        """Fill the index of a model with what this connection sees."""
        record, index = serving.record, serving.index
        if isinstance(index, MilvusIndex):
            filled = resume(connection, record, index)
        else:
            folder = self._folder(record)
            filled = fill(
                connection, record, segmented(index), folder, segment_rows=self._segment_rows
            )
        # What had to be read from the catalog is written like changes, soon.
        position = log_reads.newest_position(connection, record.gallery_row)
        self._held[record.model_row] = position - filled.behind
        return filled

    async def keep(self) -> None:
        """Write every index that is due, until cancelled; first those that had to be read from the
        catalog, so that a service that never ends well does not begin with old files for ever. The
        files of a model that was retired, here, on another replica or before a crash, go at once.
        """
        await self.write_all()
        while True:
            for gallery in self._galleries.all():
                if self._behind(gallery) >= self._changes or self._has_others(gallery):
                    await self._tried(gallery)
            await asyncio.sleep(self._interval)

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
                f"the index files of gallery {gallery.name!r} cannot be written; make room or mend "
                "the disk of the data directory",
                detail=str(error),
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
        """Changes that the oldest of its folders lacks."""
        held = (self._held.get(serving.record.model_row, 0) for serving in gallery.models.fed)
        return gallery.applied - min(held)

    def _has_others(self, gallery: Gallery) -> bool:
        """Whether a model may have a folder that the gallery feeds no more."""
        alone = self._alone.get(gallery.row)
        if alone is None:
            return bool(self._others(gallery.name, gallery.models.fed))
        return not alone <= {serving.record.model_row for serving in gallery.models.fed}

    def _write(self, gallery: Gallery) -> None:
        models, snapshots, mark = self._captured(gallery)
        for serving, snapshot in zip(models, snapshots, strict=True):
            began = time.perf_counter()
            size = 0 if snapshot is None else self._folder(serving.record).write(snapshot, mark)
            self._held[serving.record.model_row] = mark.position
            if snapshot is None:
                continue
            INDEX_WRITES.labels("written").inc()
            logger.info(
                "gallery %s: index of %d vectors of model %s at change %d written, %.1f MB in "
                "%.2f s",
                gallery.name,
                snapshot.living,
                serving.version,
                mark.position,
                size / 1e6,
                time.perf_counter() - began,
            )
        self._forget_others(gallery.name, models)
        self._alone[gallery.row] = {serving.record.model_row for serving in models}

    def _captured(
        self, gallery: Gallery
    ) -> tuple[Sequence[Serving], Sequence[Snapshot | None], LogMark]:
        """The indexes of a gallery and the position that they are all up to, taken between two
        writes to the catalog on the writer's thread, which alone changes them.
        """

        def look() -> tuple[Sequence[Serving], Sequence[Snapshot | None], LogMark]:
            gallery.follow()
            models, position = gallery.models.fed, gallery.applied
            entry = self._catalog.read_now(log_reads.entry_at, gallery.row, position)
            if entry is None:
                raise RuntimeError(f"the log of gallery {gallery.name!r} has no change {position}")
            mark = LogMark(position, entry)
            return models, [_captured(serving.index, mark) for serving in models], mark

        try:
            return self._catalog.writer.run(look).result()
        except Exception as error:
            INDEX_WRITES.labels("behind").inc()
            raise Unavailable(
                f"the index of gallery {gallery.name!r} has not caught up with the catalog; it is "
                "tried again with the next change",
                detail=f"{type(error).__name__}: {error}",
                reason="INDEX_BEHIND",
            ) from error

    def _folder(self, record: GalleryRecord) -> IndexFolder:
        known = self._folders.get(record.model_row)
        if known is None:
            known = index_folder(self._root, record, step=self._step)
            self._folders[record.model_row] = known
        return known

    def _forget_others(self, name: str, models: Sequence[Serving]) -> None:
        """Remove the files of models that no index here follows: they would outlive erasures."""
        for path in self._others(name, models):
            shutil.rmtree(path)

    def _others(self, name: str, models: Sequence[Serving]) -> list[Path]:
        kept = {_model_folder(serving.version) for serving in models}
        folder = self._root / name
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        return [path for path in there if path.name not in kept and path.is_dir()]


def _captured(index: GalleryIndex, mark: LogMark) -> Snapshot | None:
    """The state of an index to be written; None for one that keeps its rows itself."""
    if isinstance(index, SegmentedIndex):
        return index.snapshot
    if isinstance(index, MilvusIndex):
        index.remember(mark)
    return None


def index_folder(
    root: Path, record: GalleryRecord, *, step: Callable[[str], None] = lambda _: None
) -> IndexFolder:
    """The folder of a gallery's index of a model; the arguments as IndexKeeper's."""
    return IndexFolder(
        root / record.name / _model_folder(record.model_version),
        model_version=record.model_version,
        dimension=record.dimension,
        step=step,
    )


def _model_folder(version: str) -> str:
    return hashlib.sha256(version.encode()).hexdigest()[:32]
