"""The JSON of the REST API: resight.v1 with its field names, times in RFC 3339."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from service.domain import crop as domain
from service.transport.rest.filter_schemas import Strict

__all__ = [
    "Camera",
    "CameraPage",
    "CreateCamera",
    "Crop",
    "CropPage",
    "DeletionPending",
    "EmbedAnswer",
    "IngestAnswer",
    "Stats",
]


class CreateCamera(Strict):
    """The camera to register."""

    camera_id: str
    display_name: str = ""
    zone: str = ""


class Camera(BaseModel):
    """A registered camera."""

    camera_id: str
    display_name: str
    zone: str
    create_time: datetime | None
    retention_days: float | None = Field(
        description="Days its crops are kept; null for the service's own `retention.days`."
    )

    @classmethod
    def of(cls, camera: domain.Camera) -> Self:
        """From the domain's value."""
        return cls(
            camera_id=camera.camera_id,
            display_name=camera.display_name,
            zone=camera.zone,
            create_time=camera.create_time,
            retention_days=camera.retention_days,
        )


class CameraPage(BaseModel):
    """A page of cameras, by id."""

    cameras: list[Camera]
    next_page_token: str


class Crop(BaseModel):
    """One sighting."""

    crop_id: str
    camera_id: str
    capture_time: datetime
    track_id: str
    zone: str
    attributes: dict[str, str]
    sha256: str = Field(description="Lower-case hex.")
    create_time: datetime | None

    @classmethod
    def of(cls, crop: domain.Crop) -> Self:
        """From the domain's value."""
        return cls(
            crop_id=str(crop.crop_id),
            camera_id=crop.camera_id,
            capture_time=crop.capture_time,
            track_id=crop.track_id,
            zone=crop.zone,
            attributes=dict(crop.attributes),
            sha256=crop.sha256.hex(),
            create_time=crop.create_time,
        )


class CropPage(BaseModel):
    """A page of crops, by capture time, then id."""

    crops: list[Crop]
    next_page_token: str


class DeletionPending(BaseModel):
    """Live replicas that had not applied a deletion in time; they show the crop no longer."""

    pending_replicas: list[str]


class IngestAnswer(BaseModel):
    """What became of the crop."""

    outcome: str = Field(description="`accepted` or `duplicate`.")
    crop_id: str


class EmbedAnswer(BaseModel):
    """A vector of unit length and the encoder that made it."""

    values: list[float]
    dimension: int
    model_version: str

    @classmethod
    def of(cls, vector: NDArray[np.float32], model_version: str) -> Self:
        """From (D,) float32."""
        return cls(values=vector.tolist(), dimension=len(vector), model_version=model_version)


class Stats(BaseModel):
    """What a gallery holds."""

    crops: int
    searchable: int
    cameras: int
    model_version: str
    dimension: int
    oldest_capture_time: datetime | None
    newest_capture_time: datetime | None
