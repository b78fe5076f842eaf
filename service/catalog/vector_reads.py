"""Statements that read crops as the rows of an index."""

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
    Select,
    Text,
    cast,
    select,
    type_coerce,
)

from resight.errors import FailedPrecondition
from service.catalog.models import crops, embeddings
from service.catalog.records import GalleryRecord
from service.domain.ports import IndexRows

__all__ = ["vector_blocks", "vector_ids", "vectors_of"]

_ID_BYTES = type_coerce(crops.c.crop_id, LargeBinary)


def vector_blocks(
    connection: Connection, gallery: GalleryRecord, *, block: int
) -> Iterator[IndexRows]:
    """The model's vectors in blocks, so that memory holds one block at a time.

    Raises:
        FailedPrecondition: a vector has another length than the model's dimension.
    """
    newest = -1
    while True:
        statement = _rows(gallery).where(crops.c.crop_row > newest).order_by(crops.c.crop_row)
        rows = connection.execute(statement.limit(block)).all()
        if not rows:
            return
        newest = rows[-1].crop_row
        yield _vector_block(rows, gallery)


def vectors_of(
    connection: Connection, gallery: GalleryRecord, ids: Sequence[UUID]
) -> IndexRows | None:
    """The rows of those of these crops (a few thousand at most) that are stored; None without any.

    Raises:
        FailedPrecondition: as ``vector_blocks``.
    """
    statement = _rows(gallery).where(
        crops.c.gallery_row == gallery.gallery_row, crops.c.crop_id.in_(ids)
    )
    rows = connection.execute(statement.order_by(crops.c.crop_row)).all()
    return _vector_block(rows, gallery) if rows else None


def vector_ids(connection: Connection, gallery: GalleryRecord) -> NDArray[np.uint64]:
    """Every crop that has a vector of the model, (N, 2) uint64 halves."""
    statement = (
        select(_ID_BYTES)
        .join(embeddings, embeddings.c.crop_row == crops.c.crop_row)
        .where(embeddings.c.model_row == gallery.model_row)
    )
    found = b"".join(connection.execute(statement).scalars())
    return np.frombuffer(found, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def _rows(gallery: GalleryRecord) -> Select[Any]:
    return (
        select(
            crops.c.crop_row,
            _ID_BYTES.label("id_bytes"),
            crops.c.camera_row,
            type_coerce(crops.c.capture_time, BigInteger).label("micros"),
            crops.c.zone,
            crops.c.track_id,
            cast(crops.c.attributes, Text).label("json"),
            embeddings.c.vector,
        )
        .join(embeddings, embeddings.c.crop_row == crops.c.crop_row)
        .where(embeddings.c.model_row == gallery.model_row)
    )


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
