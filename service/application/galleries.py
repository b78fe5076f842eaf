"""The galleries this process serves: their cameras and indexes, kept in step with the catalog."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

import numpy as np

from resight.errors import NotFound
from service.application.index_filling import Filled
from service.catalog import gallery_reads
from service.catalog.records import CameraRecord, CropInsert, GalleryRecord
from service.catalog.store import Catalog
from service.domain import names
from service.domain.crop import Camera, CropFilter
from service.domain.instant import to_micros
from service.domain.ports import CameraSpan, IndexRows, RowFilter
from service.gallery.index import SEGMENT_ROWS, SegmentedIndex
from service.gallery.search_threads import SearchThreads

__all__ = ["Galleries", "Gallery", "GalleryGauges", "LiveCamera"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveCamera:
    """A camera and its key in catalog and index."""

    camera_row: int
    camera: Camera


@dataclass(frozen=True, slots=True)
class GalleryGauges:
    """What the metrics show of one gallery."""

    vectors: int
    tombstones: int
    index_bytes: int
    index_lag_seconds: float


class Gallery:
    """One gallery: its record, its cameras and its index.

    The index is only changed by the catalog's writer thread, in the order of the log.
    """

    def __init__(
        self,
        record: GalleryRecord,
        cameras: Iterable[CameraRecord],
        *,
        index: SegmentedIndex,
    ) -> None:
        self.record = record
        self.index = index
        # Rows added and removed since this process began.
        self.changes = 0
        self._cameras: Mapping[str, LiveCamera] = {}
        self._waiting: deque[tuple[float, Callable[[], object]]] = deque()
        for camera in cameras:
            self.add_camera(camera)

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def cameras(self) -> Mapping[str, LiveCamera]:
        """Its cameras by id; replaced, never changed."""
        return self._cameras

    def add_camera(self, record: CameraRecord) -> None:
        """Make a stored camera known."""
        if record.camera.camera_id not in self._cameras:
            live = LiveCamera(record.camera_row, record.camera)
            self._cameras = {**self._cameras, record.camera.camera_id: live}

    def camera(self, camera_id: str, *, field: str) -> LiveCamera:
        """A camera of this gallery.

        Raises:
            NotFound: it was never registered.
        """
        live = self._cameras.get(camera_id)
        if live is None:
            raise NotFound(
                f"{field}: camera {camera_id!r} is not registered in gallery {self.name!r}; "
                "register it with CreateCamera (`resight cameras add`)",
                field=field,
                reason="CAMERA_NOT_REGISTERED",
            )
        return live

    def row_filter(
        self,
        chosen: CropFilter,
        *,
        exclude_ids: Iterable[UUID] = (),
        exclude_spans: Sequence[CameraSpan] = (),
    ) -> RowFilter:
        """A checked filter in terms of the index.

        Raises:
            NotFound: it names a camera that was never registered.
        """
        include = self.camera_rows(chosen.include_camera_ids, "filter.include_camera_ids")
        exclude = self.camera_rows(chosen.exclude_camera_ids, "filter.exclude_camera_ids")
        return RowFilter(
            include_cameras=include or None,
            exclude_cameras=exclude,
            start=_micros(chosen.capture_range.start_time),
            end=_micros(chosen.capture_range.end_time),
            exclude_ids=frozenset(exclude_ids),
            include_zones=frozenset(chosen.include_zones) or None,
            exclude_zones=frozenset(chosen.exclude_zones),
            include_tracks=frozenset(chosen.include_track_ids) or None,
            exclude_tracks=frozenset(chosen.exclude_track_ids),
            include_attributes=chosen.include_attributes,
            exclude_attributes=chosen.exclude_attributes,
            exclude_spans=exclude_spans,
        )

    def camera_rows(self, camera_ids: Iterable[str], field: str) -> frozenset[int]:
        """The keys of these cameras.

        Raises:
            NotFound: one was never registered.
        """
        return frozenset(self.camera(name, field=field).camera_row for name in camera_ids)

    def apply(self, change: Callable[[], object]) -> None:
        """Change the index, after every change before; called by the writer's thread alone.

        A change that fails stays first in line and is tried again with the next one; until then
        the lag grows.
        """
        self._waiting.append((time.monotonic(), change))
        while self._waiting:
            self._waiting[0][1]()
            self._waiting.popleft()

    @property
    def caught_up(self) -> bool:
        """Whether the index has every change it was told of; asked on the writer's thread."""
        return not self._waiting

    def remove_rows(self, ids: Sequence[UUID]) -> int:
        """Make deleted crops unfindable; returns how many were there. As ``add_rows``."""
        removed = self.index.remove(ids)
        self.changes += removed
        return removed

    def add_rows(self, inserts: Sequence[CropInsert]) -> None:
        """Make committed crops searchable."""
        halves = np.frombuffer(b"".join(item.crop.crop_id.bytes for item in inserts), dtype=">u8")
        self.index.add(
            IndexRows(
                ids=halves.reshape(-1, 2).astype(np.uint64),
                cameras=np.array([item.camera_row for item in inserts], np.int64),
                times=np.array([item.crop.capture_micros for item in inserts], np.int64),
                vectors=np.stack([item.vector for item in inserts]).astype(np.float32, copy=False),
                zones=[item.crop.zone for item in inserts],
                tracks=[item.crop.track_id for item in inserts],
                attributes=[item.crop.attributes for item in inserts],
            )
        )
        self.changes += len(inserts)

    @property
    def index_lag_seconds(self) -> float:
        """For how long the oldest change has been waiting for the index."""
        try:
            return time.monotonic() - self._waiting[0][0]
        except IndexError:
            return 0.0

    def gauges(self) -> GalleryGauges:
        """What the metrics show."""
        index = self.index
        return GalleryGauges(len(index), index.tombstones, index.nbytes, self.index_lag_seconds)


class Galleries:
    """Every gallery of the catalog, by name.

    Args:
        gather_rows: As SegmentedIndex.
        segment_rows: As SegmentedIndex.
        threads: The threads that all galleries search on.
    """

    def __init__(
        self,
        *,
        gather_rows: int,
        segment_rows: int = SEGMENT_ROWS,
        threads: SearchThreads | None = None,
    ) -> None:
        self._gather_rows = gather_rows
        self._segment_rows = segment_rows
        self._threads = threads
        self._by_name: dict[str, Gallery] = {}
        self._by_row: dict[int, Gallery] = {}

    def get(self, name: str) -> Gallery:
        """A gallery by its name as a caller wrote it; empty means ``default``.

        Raises:
            InvalidArgument: not a name.
            NotFound: no such gallery.
        """
        checked = names.gallery_name(name)
        gallery = self._by_name.get(checked)
        if gallery is None:
            raise NotFound(
                f"gallery {checked!r} does not exist; it comes into being with its first camera",
                field="gallery",
                reason="GALLERY_NOT_FOUND",
            )
        return gallery

    def all(self) -> list[Gallery]:
        """Every gallery, by name."""
        return [gallery for _, gallery in sorted(self._by_name.copy().items())]

    def open(self, record: GalleryRecord, cameras: Iterable[CameraRecord] = ()) -> Gallery:
        """Make a stored gallery known; the one known already, if it is."""
        known = self._by_name.get(record.name)
        if known is not None:
            return known
        index = SegmentedIndex(
            record.dimension,
            gather_rows=self._gather_rows,
            segment_rows=self._segment_rows,
            threads=self._threads,
        )
        gallery = Gallery(record, cameras, index=index)
        self._by_row[record.gallery_row] = gallery
        self._by_name[record.name] = gallery
        return gallery

    def load(self, catalog: Catalog, fill: Callable[[Gallery], Filled]) -> None:
        """Open every gallery of the catalog and fill its index."""
        for record in catalog.read_now(gallery_reads.all_galleries):
            cameras = catalog.read_now(gallery_reads.all_cameras, record.gallery_row)
            gallery = self.open(record, cameras)
            began = time.perf_counter()
            filled = fill(gallery)
            logger.info(
                "gallery %s: %d vectors of model %s loaded in %.2f s, %d of them from index files",
                gallery.name,
                len(gallery.index),
                record.model_version,
                time.perf_counter() - began,
                filled.from_files,
            )

    def close(self) -> None:
        """End the searching threads."""
        if self._threads is not None:
            self._threads.close()

    def inserted(self, batch: Sequence[CropInsert]) -> None:
        """The catalog has committed these crops; called by its writer thread."""
        in_galleries = itertools.groupby(
            sorted(batch, key=lambda item: item.gallery_row), key=lambda item: item.gallery_row
        )
        for gallery_row, items in in_galleries:
            gallery = self._by_row[gallery_row]
            gallery.apply(partial(gallery.add_rows, list(items)))

    def gauges(self) -> dict[str, GalleryGauges]:
        """What the metrics show, by gallery."""
        return {gallery.name: gallery.gauges() for gallery in self.all()}


def _micros(value: datetime | None) -> int | None:
    return None if value is None else to_micros(value)
