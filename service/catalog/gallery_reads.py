"""Statements that read galleries, their cameras and the vectors of their live models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Connection,
    LargeBinary,
    Row,
    Text,
    cast,
    select,
    type_coerce,
)

from resight.errors import FailedPrecondition
from service.catalog.models import cameras, crops, embeddings, galleries, models
from service.catalog.records import CameraRecord, GalleryRecord
from service.domain.crop import Camera
from service.domain.ports import IndexRows

__all__ = [
    "all_cameras",
    "all_galleries",
    "list_cameras",
    "vector",
    "vector_blocks",
]


def all_galleries(connection: Connection) -> list[GalleryRecord]:
    """Every gallery with its live model."""
    rows = connection.execute(
        select(
            galleries.c.gallery_row,
            galleries.c.name,
            models.c.model_row,
            models.c.version,
            models.c.dimension,
        )
        .join(models, models.c.gallery_row == galleries.c.gallery_row)
        .where(models.c.state == "live")
        .order_by(galleries.c.name)
    )
    return [GalleryRecord(*row) for row in rows]


def all_cameras(connection: Connection, gallery_row: int) -> list[CameraRecord]:
    """Every camera of a gallery, oldest first."""
    statement = select(cameras).where(cameras.c.gallery_row == gallery_row)
    return [_camera(row) for row in connection.execute(statement.order_by(cameras.c.camera_row))]


def list_cameras(
    connection: Connection, gallery_row: int, *, after: str, limit: int
) -> list[CameraRecord]:
    """Cameras by id, beginning after one."""
    statement = (
        select(cameras)
        .where(cameras.c.gallery_row == gallery_row, cameras.c.camera_id > after)
        .order_by(cameras.c.camera_id)
        .limit(limit)
    )
    return [_camera(row) for row in connection.execute(statement)]


def vector(
    connection: Connection, gallery: GalleryRecord, crop_id: UUID
) -> NDArray[np.float32] | None:
    """The live model's vector of a crop, float32 (D,)."""
    statement = (
        select(embeddings.c.vector)
        .join(crops, crops.c.crop_row == embeddings.c.crop_row)
        .where(
            crops.c.gallery_row == gallery.gallery_row,
            crops.c.crop_id == crop_id,
            embeddings.c.model_row == gallery.model_row,
        )
    )
    data = connection.execute(statement).scalar()
    return None if data is None else np.frombuffer(data, dtype="<f4").astype(np.float32)


def vector_blocks(
    connection: Connection, gallery: GalleryRecord, *, block: int
) -> Iterator[IndexRows]:
    """The live model's vectors in blocks, so that memory holds one block at a time.

    Raises:
        FailedPrecondition: a vector has another length than the model's dimension.
    """
    newest = -1
    while True:
        rows = connection.execute(
            select(
                crops.c.crop_row,
                type_coerce(crops.c.crop_id, LargeBinary).label("id_bytes"),
                crops.c.camera_row,
                type_coerce(crops.c.capture_time, BigInteger).label("micros"),
                crops.c.zone,
                crops.c.track_id,
                cast(crops.c.attributes, Text).label("json"),
                embeddings.c.vector,
            )
            .join(embeddings, embeddings.c.crop_row == crops.c.crop_row)
            .where(embeddings.c.model_row == gallery.model_row, crops.c.crop_row > newest)
            .order_by(crops.c.crop_row)
            .limit(block)
        ).all()
        if not rows:
            return
        newest = rows[-1].crop_row
        yield _vector_block(rows, gallery)


def _vector_block(rows: Sequence[Row[Any]], gallery: GalleryRecord) -> IndexRows:
    size = 4 * gallery.dimension
    wrong = next((row for row in rows if len(row.vector) != size), None)
    if wrong is not None:
        raise FailedPrecondition(
            f"crop {UUID(bytes=bytes(wrong.id_bytes))} of gallery {gallery.name!r} has a vector of "
            f"{len(wrong.vector)} bytes and the model needs {size}: the catalog is damaged, "
            "restore it from a backup",
            field="database_url",
            reason="CATALOG_DAMAGED",
        )
    vectors = np.frombuffer(b"".join(row.vector for row in rows), dtype="<f4")
    ids = np.frombuffer(b"".join(row.id_bytes for row in rows), dtype=">u8")
    return IndexRows(
        ids=ids.reshape(-1, 2).astype(np.uint64),
        cameras=np.array([row.camera_row for row in rows], dtype=np.int64),
        times=np.array([row.micros for row in rows], dtype=np.int64),
        vectors=vectors.reshape(-1, gallery.dimension).astype(np.float32, copy=False),
        zones=[row.zone for row in rows],
        tracks=[row.track_id for row in rows],
        attributes=[{} if row.json == "{}" else json.loads(row.json) for row in rows],
    )


def _camera(row: Row[Any]) -> CameraRecord:
    return CameraRecord(
        row.camera_row, Camera(row.camera_id, row.display_name, row.zone, row.create_time)
    )
