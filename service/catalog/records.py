"""What the catalog hands out and takes in, beyond the domain's own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.domain.crop import Camera, Crop

__all__ = [
    "CameraRecord",
    "CropInsert",
    "CropRecord",
    "GalleryCounts",
    "GalleryRecord",
    "InsertOutcome",
    "InsertStatus",
]


@dataclass(frozen=True, slots=True)
class GalleryRecord:
    """A gallery with one of its models, the live one unless said; ``model_row`` is that model's key
    and ``generation`` how often the gallery's models have changed.
    """

    gallery_row: int
    name: str
    model_row: int
    model_version: str
    dimension: int
    generation: int = 0


@dataclass(frozen=True, slots=True)
class CameraRecord:
    """A stored camera and its key."""

    camera_row: int
    camera: Camera


@dataclass(frozen=True, slots=True)
class CropRecord:
    """A stored crop and where its image lies."""

    crop: Crop
    blob_id: UUID


@dataclass(frozen=True, slots=True)
class CropInsert:
    """A crop to store with its vectors, its image already in the blob store.

    Args:
        gallery_row: Key of its gallery.
        camera_row: Key of its camera.
        crop: The crop.
        blob_id: Where its image lies.
        vectors: Float32 (D,) by key of model, one for each that holds vectors.
        generation: Of the gallery's models when they were made.
    """

    gallery_row: int
    camera_row: int
    crop: Crop
    blob_id: UUID
    vectors: Mapping[int, NDArray[np.float32]]
    generation: int


class InsertStatus(Enum):
    """What became of an insert."""

    INSERTED = "inserted"
    DUPLICATE = "duplicate"
    ID_CONFLICT = "id_conflict"
    # The gallery's models have changed since the vectors were made.
    OUTDATED = "outdated"


@dataclass(frozen=True, slots=True)
class InsertOutcome:
    """What became of an insert, the id of the crop that is stored now, and the position of the
    change that stored it, 0 when it was not stored.
    """

    status: InsertStatus
    crop_id: UUID
    position: int = 0


@dataclass(frozen=True, slots=True)
class GalleryCounts:
    """What a gallery holds; the times are None when it holds no crop."""

    crops: int
    oldest_capture_time: datetime | None
    newest_capture_time: datetime | None
