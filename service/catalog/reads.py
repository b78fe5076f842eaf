"""Every statement that reads the catalog, each on a connection of its own short transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Connection,
    LargeBinary,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from resight.errors import FailedPrecondition
from service.catalog.models import blob_removals, cameras, crops, embeddings, galleries, models
from service.catalog.records import (
    CameraRecord,
    CropRecord,
    GalleryCounts,
    GalleryRecord,
    VectorBlock,
)
from service.domain.crop import Camera, Crop

__all__ = [
    "all_cameras",
    "all_galleries",
    "count_vectors",
    "counts",
    "crop",
    "crops_by_id",
    "duplicate",
    "list_cameras",
    "list_crops",
    "pending_blob_removals",
    "stored_blobs",
    "vector",
    "vector_blocks",
]

# SQLite takes at most 32,766 parameters a statement.
MAX_IN = 10_000
_ID_BYTES = type_coerce(crops.c.crop_id, NullType)


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


def crop(connection: Connection, gallery_row: int, crop_id: UUID) -> CropRecord | None:
    """One crop."""
    row = connection.execute(
        _crops(gallery_row, crops.c.blob_id).where(crops.c.crop_id == crop_id)
    ).first()
    return None if row is None else CropRecord(_crop(row), row.blob_id)


def crops_by_id(
    connection: Connection, gallery_row: int, ids: Sequence[UUID], *, gallery_size: int
) -> list[Crop | None]:
    """The crops with these ids, in their order; None for one that is not there.

    Most of a gallery, as a full ranking asks for, is read in one pass: looking each key up costs
    three times as much. ``gallery_size`` need not be exact.
    """
    keys = [crop_id.bytes for crop_id in ids]
    statement = _crops(gallery_row)
    found: dict[bytes, Row[Any]] = {}
    if 2 * len(keys) > gallery_size:
        found.update((row[0], row) for row in connection.execute(statement).all())
    else:
        statement = statement.where(_ID_BYTES.in_(bindparam("keys", expanding=True)))
        for start in range(0, len(keys), MAX_IN):
            rows = connection.execute(statement, {"keys": keys[start : start + MAX_IN]})
            found.update((row[0], row) for row in rows.all())
    return [
        None if (row := found.get(key)) is None else _crop(row, crop_id)
        for crop_id, key in zip(ids, keys, strict=True)
    ]


def list_crops(
    connection: Connection,
    gallery_row: int,
    *,
    include_cameras: Collection[int] | None,
    exclude_cameras: Collection[int],
    start: datetime | None,
    end: datetime | None,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Crop]:
    """Crops by capture time, then id, beginning after one; None includes every camera."""
    statement = _crops(gallery_row)
    if include_cameras is not None:
        statement = statement.where(crops.c.camera_row.in_(sorted(include_cameras)))
    if exclude_cameras:
        statement = statement.where(crops.c.camera_row.not_in(sorted(exclude_cameras)))
    if start is not None:
        statement = statement.where(crops.c.capture_time >= start)
    if end is not None:
        statement = statement.where(crops.c.capture_time < end)
    if after is not None:
        time, crop_id = after
        same_time = and_(crops.c.capture_time == time, crops.c.crop_id > crop_id)
        # The first condition follows from the second; it lets the index begin at the right row.
        statement = statement.where(
            crops.c.capture_time >= time, or_(crops.c.capture_time > time, same_time)
        )
    statement = statement.order_by(crops.c.capture_time, crops.c.crop_id).limit(limit)
    return [_crop(row) for row in connection.execute(statement)]


def duplicate(
    connection: Connection,
    gallery_row: int,
    camera_row: int,
    capture_time: datetime,
    track_id: str,
    sha256: bytes,
) -> UUID | None:
    """The id of the stored crop that is equal, if there is one."""
    found: UUID | None = connection.execute(
        select(crops.c.crop_id).where(
            crops.c.gallery_row == gallery_row,
            crops.c.sha256 == sha256,
            crops.c.camera_row == camera_row,
            crops.c.capture_time == capture_time,
            crops.c.track_id == track_id,
        )
    ).scalar()
    return found


def counts(connection: Connection, gallery_row: int) -> GalleryCounts:
    """How many crops, and the first and last capture time."""
    row = connection.execute(
        select(func.count(), func.min(crops.c.capture_time), func.max(crops.c.capture_time)).where(
            crops.c.gallery_row == gallery_row
        )
    ).one()
    return GalleryCounts(*row)


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


def count_vectors(connection: Connection, gallery: GalleryRecord) -> int:
    """Vectors of the live model."""
    statement = select(func.count()).where(embeddings.c.model_row == gallery.model_row)
    return connection.execute(statement).scalar_one()


def vector_blocks(
    connection: Connection, gallery: GalleryRecord, *, block: int
) -> Iterator[VectorBlock]:
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


def _vector_block(rows: Sequence[Row[Any]], gallery: GalleryRecord) -> VectorBlock:
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
    return VectorBlock(
        ids=ids.reshape(-1, 2).astype(np.uint64),
        camera_rows=np.array([row.camera_row for row in rows], dtype=np.int64),
        times=np.array([row.micros for row in rows], dtype=np.int64),
        vectors=vectors.reshape(-1, gallery.dimension).astype(np.float32, copy=False),
    )


def pending_blob_removals(connection: Connection, *, limit: int) -> list[str]:
    """Keys of images whose crops are deleted."""
    statement = select(blob_removals.c.blob_key).order_by(blob_removals.c.create_time).limit(limit)
    return list(connection.execute(statement).scalars())


def stored_blobs(connection: Connection, blob_ids: Collection[UUID]) -> set[UUID]:
    """Which of these images belong to a crop."""
    wanted = list(blob_ids)
    found: set[UUID] = set()
    for start in range(0, len(wanted), MAX_IN):
        chosen = crops.c.blob_id.in_(wanted[start : start + MAX_IN])
        found.update(connection.execute(select(crops.c.blob_id).where(chosen)).scalars())
    return found


def _crops(gallery_row: int, *more: Any) -> Select[Any]:
    """Crops as the driver gives them: a full ranking reads thousands, and converting each value by
    its type would cost more than the rows.
    """
    return (
        select(
            _ID_BYTES,
            cameras.c.camera_id,
            type_coerce(crops.c.capture_time, BigInteger),
            type_coerce(crops.c.sha256, NullType),
            crops.c.track_id,
            crops.c.zone,
            cast(crops.c.attributes, Text),
            type_coerce(crops.c.create_time, BigInteger),
            *more,
        )
        .join(cameras, cameras.c.camera_row == crops.c.camera_row)
        .where(crops.c.gallery_row == gallery_row)
    )


def _crop(row: Sequence[Any], crop_id: UUID | None = None) -> Crop:
    """The crop of a row of ``_crops``, with its id where the caller has it already."""
    id_bytes, camera_id, captured, sha256, track_id, zone, attributes, created, *_ = row
    return Crop(
        crop_id or UUID(bytes=id_bytes),
        camera_id,
        captured,
        sha256,
        track_id,
        zone,
        {} if attributes == "{}" else json.loads(attributes),
        created,
    )


def _camera(row: Row[Any]) -> CameraRecord:
    return CameraRecord(
        row.camera_row, Camera(row.camera_id, row.display_name, row.zone, row.create_time)
    )
