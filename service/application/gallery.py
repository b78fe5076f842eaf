"""One gallery: its cameras and models, kept in step with the catalog's log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from resight.errors import NotFound, Unavailable
from service.application.following import follow
from service.application.serving import UNREADY, Models, Serving
from service.catalog import gallery_reads, vector_reads
from service.catalog.log_reads import Change
from service.catalog.models import CHANGE_CAMERA_ADDED, CHANGE_MODELS
from service.catalog.records import CameraRecord, CropInsert, GalleryRecord
from service.catalog.store import Catalog
from service.domain.crop import Camera
from service.domain.ports import IndexRows

__all__ = ["Gallery", "GalleryGauges", "LiveCamera"]


@dataclass(frozen=True, slots=True)
class LiveCamera:
    """A camera and its key in catalog and index."""

    camera_row: int
    camera: Camera


@dataclass(frozen=True, slots=True)
class GalleryGauges:
    """What the metrics show of one gallery, its index the live model's; bytes of the indexes that
    are fed beside it, and of all on a device; what it refuses while a model that the catalog names
    does not run here.
    """

    model_version: str
    vectors: int
    tombstones: int
    index_bytes: int
    beside_bytes: int
    device_bytes: int
    index_lag_seconds: float
    refuses_searches: bool
    refuses_crops: bool


class Gallery:
    """One gallery: its cameras, and its models with an index each.

    ``applied`` is the position of the log that every index is up to. It and the indexes are only
    changed by the catalog's writer thread, in the order of the log: own changes straight from
    memory when nothing lies between, everything else by following the log.

    Args:
        catalog: Where the log is read.
        models: With indexes that are up to ``applied``.
        applied: A position of the log.
        models_changed: Called on the writer's thread when the log says that the states of the
            gallery's models have changed.
    """

    def __init__(
        self,
        catalog: Catalog,
        models: Models,
        *,
        applied: int,
        cameras: Iterable[CameraRecord] = (),
        models_changed: Callable[[Gallery], None] = lambda _: None,
    ) -> None:
        self._catalog = catalog
        self._models_changed = models_changed
        self._models = models
        self.applied = applied
        # Whether the last try to run the models that the catalog names has failed.
        self.unrefreshed = False
        self._cameras: Mapping[str, LiveCamera] = {}
        # The newest position heard of, and since when something has been waiting to be applied.
        self._heard: tuple[int, float] = (applied, 0.0)
        for camera in cameras:
            self.add_camera(camera)

    @property
    def models(self) -> Models:
        """What it searches and feeds; taken once by a request."""
        return self._models

    @models.setter
    def models(self, models: Models) -> None:
        before, self._models = self._models, models
        for serving in before.fed:
            if serving not in models.fed:
                serving.index.discard()

    def answering(self) -> Models:
        """Its models, to answer with.

        Raises:
            Unavailable: the live one was retired before its successor ran (``MODEL_NOT_LOADED``).
        """
        models = self._models
        if models.outlived:
            raise Unavailable(
                f"model {models.live.version} of gallery {self.name!r} was retired, and the one "
                "that answers now does not run in this process yet; ask another replica, or try "
                "again later (its log says why)",
                field="gallery",
                reason="MODEL_NOT_LOADED",
            )
        return models

    @property
    def serving(self) -> Serving:
        """The live model."""
        return self.models.live

    @property
    def record(self) -> GalleryRecord:
        """The gallery with its live model."""
        return self.models.live.record

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def row(self) -> int:
        """Its key."""
        return self.record.gallery_row

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

    def advance(self, stored: Sequence[tuple[CropInsert, int]]) -> None:
        """Make crops that this process has committed searchable, given with their positions.

        When it fails the lag grows, and the log is followed at the next occasion.
        """
        fresh = [(item, position) for item, position in stored if position > self.applied]
        if not fresh:
            return
        self.heard_of(fresh[-1][1])
        if (fresh[0][1], fresh[-1][1]) != (self.applied + 1, self.applied + len(fresh)):
            self.follow()
            return
        inserts = [item for item, _ in fresh]
        for serving in self.models.fed:
            serving.index.add(_index_rows(inserts, serving.record.model_row))
        self.applied = fresh[-1][1]

    def filled(self, model_row: int, crop_ids: Sequence[UUID], first: int) -> None:
        """Make vectors searchable that this process has committed for crops which had none of this
        model, given with the position of the first one's change.
        """
        serving = next((one for one in self.models.fed if one.record.model_row == model_row), None)
        if serving is None or first != self.applied + 1:
            self.follow()
            return
        last = first + len(crop_ids) - 1
        self.heard_of(last)
        with self._catalog.connect() as connection:
            rows = vector_reads.vectors_of(connection, serving.record, crop_ids)
        if rows is not None:
            serving.index.add(rows)
        self.applied = last

    def follow(self) -> None:
        """Apply everything that the log says and the indexes lack.

        Raises:
            Unavailable: the catalog does not answer.
            FailedPrecondition: it is damaged.
        """
        self.heard_of(self.applied + 1)
        targets = [(serving.record, serving.index) for serving in self.models.fed]
        others: list[Change] = []
        with self._catalog.connect() as connection:
            newest, _ = follow(
                connection, self.row, targets, after=self.applied, told=others.append
            )
            for change in others:
                if change.kind == CHANGE_CAMERA_ADDED and change.camera_row is not None:
                    record = gallery_reads.camera_at(connection, change.camera_row)
                    if record is not None:
                        self.add_camera(record)
        self.applied = newest
        self._heard = (newest, 0.0)
        if any(change.kind == CHANGE_MODELS for change in others):
            self._models_changed(self)

    def take(self, models: Models, joined: Sequence[tuple[Serving, int]] = ()) -> bool:
        """Replace the models; on the writer's thread.

        Args:
            models: The new ones.
            joined: Those whose index is not followed yet, and the position that it is up to.

        Returns:
            False, and nothing is replaced, when the catalog has gone on to another generation.
        """
        self.follow()
        with self._catalog.connect() as connection:
            for serving, position in joined:
                target = serving.record, serving.index
                follow(connection, self.row, [target], after=position)
            current = gallery_reads.generation(connection, self.row)
        if models.generation != current:
            return False
        self.models = models
        return True

    def heard_of(self, position: int) -> None:
        """There is a change at this position; until it is applied the index lags."""
        newest, since = self._heard
        if position > self.applied:
            waiting = newest > self.applied
            self._heard = (max(newest, position), since if waiting else time.monotonic())

    @property
    def behind(self) -> bool:
        """Whether a change is known that the indexes lack."""
        return self._heard[0] > self.applied

    @property
    def index_lag_seconds(self) -> float:
        """For how long the oldest change known has been waiting for the index."""
        newest, since = self._heard
        return time.monotonic() - since if newest > self.applied else 0.0

    def gauges(self) -> GalleryGauges:
        """What the metrics show."""
        live = self.serving
        return GalleryGauges(
            live.version,
            len(live.index),
            live.index.tombstones,
            live.index.nbytes,
            sum(serving.index.nbytes for serving in self.models.warm),
            sum(serving.index.device_bytes for serving in self.models.fed),
            self.index_lag_seconds,
            self.models.outlived,
            self.unrefreshed or self.models.generation == UNREADY,
        )


def _index_rows(inserts: Sequence[CropInsert], model_row: int) -> IndexRows:
    halves = np.frombuffer(b"".join(item.crop.crop_id.bytes for item in inserts), dtype=">u8")
    vectors = np.stack([item.vectors[model_row] for item in inserts])
    return IndexRows(
        ids=halves.reshape(-1, 2).astype(np.uint64),
        cameras=np.array([item.camera_row for item in inserts], np.int64),
        times=np.array([item.crop.capture_micros for item in inserts], np.int64),
        vectors=vectors.astype(np.float32, copy=False),
        zones=[item.crop.zone for item in inserts],
        tracks=[item.crop.track_id for item in inserts],
        attributes=[item.crop.attributes for item in inserts],
    )
