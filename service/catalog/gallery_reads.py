"""Statements that read galleries, their cameras and single vectors."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, bindparam, func, select

from service.catalog.models import cameras, crops, embeddings, galleries, models
from service.catalog.records import CameraRecord, GalleryRecord
from service.domain.crop import Camera

__all__ = [
    "RECORD_COLUMNS",
    "all_cameras",
    "all_galleries",
    "camera_at",
    "camera_record",
    "generation",
    "kept_days",
    "list_cameras",
    "positions",
    "vector",
]

# What a GalleryRecord is made of, in its order.
RECORD_COLUMNS = (
    galleries.c.gallery_row,
    galleries.c.name,
    models.c.model_row,
    models.c.version,
    models.c.dimension,
    galleries.c.generation,
)

# Made once: every search by a stored crop reads it.
_VECTOR = (
    select(embeddings.c.vector)
    .join(crops, crops.c.crop_row == embeddings.c.crop_row)
    .where(
        crops.c.gallery_row == bindparam("gallery_row"),
        crops.c.crop_id == bindparam("crop_id"),
        embeddings.c.model_row == bindparam("model_row"),
    )
)


def all_galleries(connection: Connection) -> list[GalleryRecord]:
    """Every gallery with its live model."""
    rows = connection.execute(
        select(*RECORD_COLUMNS)
        .join(models, models.c.gallery_row == galleries.c.gallery_row)
        .where(models.c.state == "live")
        .order_by(galleries.c.name)
    )
    return [GalleryRecord(*row) for row in rows]


def all_cameras(connection: Connection, gallery_row: int) -> list[CameraRecord]:
    """Every camera of a gallery, oldest first."""
    statement = select(cameras).where(cameras.c.gallery_row == gallery_row)
    return [
        camera_record(row) for row in connection.execute(statement.order_by(cameras.c.camera_row))
    ]


def camera_at(connection: Connection, camera_row: int) -> CameraRecord | None:
    """One camera by its key."""
    row = connection.execute(select(cameras).where(cameras.c.camera_row == camera_row)).first()
    return None if row is None else camera_record(row)


def generation(connection: Connection, gallery_row: int) -> int:
    """How often the gallery's models have changed."""
    statement = select(galleries.c.generation).where(galleries.c.gallery_row == gallery_row)
    return int(connection.execute(statement).scalar_one())


def positions(connection: Connection) -> list[tuple[int, str, int]]:
    """Key, name and newest position of every gallery."""
    statement = select(galleries.c.gallery_row, galleries.c.name, galleries.c.position)
    return [(row.gallery_row, row.name, row.position) for row in connection.execute(statement)]


def list_cameras(
    connection: Connection,
    gallery_row: int,
    *,
    after: str,
    limit: int,
    among: Collection[str] | None = None,
) -> list[CameraRecord]:
    """Cameras by id, beginning after one; only those ``among`` some, when given."""
    statement = (
        select(cameras)
        .where(cameras.c.gallery_row == gallery_row, cameras.c.camera_id > after)
        .order_by(cameras.c.camera_id)
        .limit(limit)
    )
    if among is not None:
        statement = statement.where(cameras.c.camera_id.in_(sorted(among)))
    return [camera_record(row) for row in connection.execute(statement)]


def kept_days(connection: Connection, gallery_row: int) -> dict[float | None, datetime | None]:
    """The retentions in days that cameras of a gallery have of their own, None for those that have
    none; and when the oldest crop of such cameras was captured.
    """
    # A look for each camera: the minimum over all crops would read as many.
    oldest = (
        select(crops.c.capture_time)
        .where(crops.c.camera_row == cameras.c.camera_row)
        .order_by(crops.c.capture_time)
        .limit(1)
        .correlate(cameras)
        .scalar_subquery()
    )
    of_each = (
        select(cameras.c.retention_days.label("days"), oldest.label("oldest"))
        .where(cameras.c.gallery_row == gallery_row)
        .subquery()
    )
    statement = select(of_each.c.days, func.min(of_each.c.oldest)).group_by(of_each.c.days)
    return {row[0]: row[1] for row in connection.execute(statement)}


def vector(
    connection: Connection, gallery: GalleryRecord, crop_id: UUID
) -> NDArray[np.float32] | None:
    """The model's vector of a crop, float32 (D,)."""
    keys = {
        "gallery_row": gallery.gallery_row,
        "crop_id": crop_id,
        "model_row": gallery.model_row,
    }
    data = connection.execute(_VECTOR, keys).scalar()
    return None if data is None else np.frombuffer(data, dtype="<f4").astype(np.float32)


def camera_record(row: Row[Any]) -> CameraRecord:
    """A camera of a row of its table."""
    return CameraRecord(
        row.camera_row,
        Camera(row.camera_id, row.display_name, row.zone, row.create_time, row.retention_days),
    )
