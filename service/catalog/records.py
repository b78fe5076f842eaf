"""What the catalog hands out and takes in, beyond the domain's own values."""

from __future__ import annotations

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
    """A gallery and its live model; ``model_row`` is the key of that model."""

    gallery_row: int
    name: str
    model_row: int
    model_version: str
    dimension: int


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
    """A crop to store with its vector, float32 (D,), its image already in the blob store."""

    gallery_row: int
    camera_row: int
    model_row: int
    crop: Crop
    blob_id: UUID
    vector: NDArray[np.float32]


class InsertStatus(Enum):
    """What became of an insert."""

    INSERTED = "inserted"
    DUPLICATE = "duplicate"
    ID_CONFLICT = "id_conflict"


@dataclass(frozen=True, slots=True)
class InsertOutcome:
    """What became of an insert, and the id of the crop that is stored now."""

    status: InsertStatus
    crop_id: UUID


@dataclass(frozen=True, slots=True)
class GalleryCounts:
    """What a gallery holds; the times are None when it holds no crop."""

    crops: int
    oldest_capture_time: datetime | None
    newest_capture_time: datetime | None
