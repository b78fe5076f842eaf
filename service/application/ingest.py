"""Ingest: one crop checked, embedded, stored, searchable, and only then acknowledged."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Self
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from resight.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    ImageTooLarge,
    InvalidArgument,
    ResightError,
    ResourceExhausted,
    Unavailable,
)
from service.application import visibility
from service.application.duplicates import Duplicates
from service.application.galleries import Galleries
from service.application.gallery import Gallery, LiveCamera
from service.application.landing import Landing
from service.application.lineup import Lineup
from service.application.serving import Models
from service.catalog.duplicate_reads import CropIdentity
from service.catalog.records import CropInsert, InsertOutcome, InsertStatus
from service.catalog.store import Catalog
from service.domain import names
from service.domain.crop import Crop, new_crop
from service.domain.identifier import image_key, uuid7
from service.domain.instant import CaptureTimeRule
from service.domain.ports import Clock, Priority
from service.hidden_detail import logged
from service.settings import LimitSettings
from service.telemetry import STORED

__all__ = ["Ingest", "IngestItem", "IngestResult", "Outcome"]

logger = logging.getLogger(__name__)


NORM_SLACK = 1e-3
# How often vectors are made anew because the models changed in between, and how long it is waited
# for a new one to be loaded.
ATTEMPTS = 3
MODELS_SECONDS = 30.0


class Outcome(Enum):
    """How an item was answered."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class IngestItem:
    """One crop as a caller sent it; nothing is checked yet. An empty ``crop_id`` asks for one."""

    gallery: str
    camera_id: str
    capture_time: datetime | None
    image: bytes
    crop_id: str = ""
    track_id: str = ""
    zone: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of an item; ``reason``, ``message`` and the ``field`` at fault are empty when it
    was accepted.
    """

    outcome: Outcome
    crop_id: UUID | None = None
    reason: str = ""
    message: str = ""
    field: str = ""

    @classmethod
    def of(cls, outcome: Outcome, error: ResightError) -> Self:
        """What an error makes of an item."""
        logged(error)
        return cls(outcome, reason=error.reason, message=error.message, field=error.field)


class Ingest:
    """Stores crops. Many may be submitted at once; those that wait together share a commit."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        lineup: Lineup,
        landing: Landing,
        clock: Clock,
        limits: LimitSettings,
    ) -> None:
        self._duplicates = Duplicates(catalog)
        self._galleries = galleries
        self._lineup = lineup
        self._landing = landing
        self._clock = clock
        self._limits = limits
        self._rule = CaptureTimeRule(
            limits.earliest_capture_time, timedelta(seconds=limits.max_clock_ahead_seconds)
        )

    async def submit(self, item: IngestItem) -> IngestResult:
        """Store one crop; never raises but on cancellation.

        ACCEPTED means: the image, the catalog row and the vector survive a crash, and a search
        begun from now on can find the crop.
        """
        try:
            return await self._store(item)
        except (ResourceExhausted, Unavailable, DeadlineExceeded) as error:
            return IngestResult.of(Outcome.RETRY, error)
        except ResightError as error:
            return IngestResult.of(Outcome.REJECTED, error)
        except OSError as error:
            return IngestResult.of(Outcome.RETRY, _not_written(error))
        except Exception:
            logger.exception("a crop could not be ingested")
            message = "the service failed on this crop; its log says why"
            return IngestResult(Outcome.REJECTED, reason="INTERNAL", message=message)

    async def _store(self, item: IngestItem) -> IngestResult:
        gallery = self._galleries.get(item.gallery)
        crop = self._checked(item)
        visibility.require_own(crop)
        camera = gallery.camera(crop.camera_id, field="crop.camera_id")
        existing = await self._duplicates.find(
            CropIdentity(
                gallery.record.gallery_row,
                camera.camera_row,
                crop.capture_time,
                crop.track_id,
                crop.sha256,
            )
        )
        if existing is not None:
            return _duplicate(existing)
        for _ in range(ATTEMPTS):
            models = gallery.models
            vectors = await self._vectors(models, item)
            blob_id = uuid7(self._clock.now())
            insert = _insert(models, camera, crop, blob_id, vectors)
            key = image_key(gallery.name, blob_id)
            outcome = await self._landing.store(insert, key, item.image)
            if outcome.status is not InsertStatus.OUTDATED:
                break
            await self._models_current(gallery, item)
        if outcome.status is InsertStatus.INSERTED:
            STORED.labels(gallery.name).inc()
        return _result(outcome)

    async def _models_current(self, gallery: Gallery, item: IngestItem) -> None:
        """Wait until the gallery feeds what the catalog says, for as long as somebody waits."""
        within = None if item.deadline is None else item.deadline - time.monotonic()
        try:
            async with asyncio.timeout(MODELS_SECONDS if within is None else within):
                await self._lineup.refresh(gallery)
        except TimeoutError as error:
            raise Unavailable(
                "the gallery's models have just changed and are being loaded; send it again",
                reason="MODELS_CHANGED",
            ) from error
        except (FailedPrecondition, OSError) as error:
            raise Unavailable(
                "a model of the gallery does not run in this process; send it again later",
                reason="MODEL_NOT_LOADED",
                detail=str(error),
            ) from error

    async def _vectors(self, models: Models, item: IngestItem) -> dict[int, NDArray[np.float32]]:
        """A vector of every model that is fed, by key of model."""
        wanted = [
            serving.encoder.embedder.embed_image(
                item.image, priority=Priority.BULK, deadline=item.deadline
            )
            for serving in models.fed
        ]
        # A task of its own for the only one would be work for nothing.
        made = [await wanted[0]] if len(wanted) == 1 else await asyncio.gather(*wanted)
        for serving, vector in zip(models.fed, made, strict=True):
            _refuse_broken_vector(vector, serving.record.dimension)
        rows = [serving.record.model_row for serving in models.fed]
        return dict(zip(rows, made, strict=True))

    def _checked(self, item: IngestItem) -> Crop:
        if not item.image:
            raise InvalidArgument("image is empty; send the encoded crop", field="image")
        if len(item.image) > self._limits.max_image_bytes:
            raise ImageTooLarge(
                f"image has {len(item.image)} bytes; send at most {self._limits.max_image_bytes} "
                "(limits.max_image_bytes)",
                field="image",
            )
        now = self._clock.now()
        return new_crop(
            names.crop_id(item.crop_id, field="crop.crop_id") if item.crop_id else uuid7(now),
            camera_id=item.camera_id,
            capture_time=item.capture_time,
            image=item.image,
            track_id=item.track_id,
            zone=item.zone,
            attributes=item.attributes,
            rule=self._rule,
            now=now,
        )


def _refuse_broken_vector(vector: NDArray[np.float32], dimension: int) -> None:
    """One vector of NaN in the index would spoil every ranking, so the encoder is not believed."""
    if vector.shape != (dimension,) or not abs(float(np.linalg.norm(vector)) - 1.0) < NORM_SLACK:
        raise ResightError(
            f"the encoder gave a vector of shape {vector.shape} and norm "
            f"{float(np.linalg.norm(vector))} where ({dimension},) and 1 were due; verify the "
            "bundle (`resight bundle verify`)",
            field="bundle",
            reason="ENCODER_BROKEN",
        )


def _insert(
    models: Models,
    camera: LiveCamera,
    crop: Crop,
    blob_id: UUID,
    vectors: Mapping[int, NDArray[np.float32]],
) -> CropInsert:
    return CropInsert(
        gallery_row=models.live.record.gallery_row,
        camera_row=camera.camera_row,
        crop=crop._replace(zone=crop.zone or camera.camera.zone),
        blob_id=blob_id,
        vectors=vectors,
        generation=models.generation,
    )


def _result(outcome: InsertOutcome) -> IngestResult:
    if outcome.status is InsertStatus.INSERTED:
        return IngestResult(Outcome.ACCEPTED, outcome.crop_id)
    if outcome.status is InsertStatus.DUPLICATE:
        return _duplicate(outcome.crop_id)
    if outcome.status is InsertStatus.OUTDATED:
        return IngestResult(
            Outcome.RETRY,
            reason="MODELS_CHANGED",
            message="the gallery's models have just changed; send it again",
        )
    error = AlreadyExists(
        f"crop.crop_id {outcome.crop_id} is the id of a different crop; send another id, or none "
        "to be given one",
        field="crop.crop_id",
        reason="ID_CONFLICT",
    )
    return IngestResult.of(Outcome.REJECTED, error)


def _duplicate(crop_id: UUID) -> IngestResult:
    return IngestResult(
        Outcome.DUPLICATE,
        crop_id,
        reason="DUPLICATE",
        message="a crop with this camera, time, track and image is already stored",
    )


def _not_written(error: OSError) -> Unavailable:
    return Unavailable(
        "the blob store cannot be written; send it again later",
        reason="BLOBS_UNAVAILABLE",
        detail=f"{type(error).__name__}: {error}",
    )
