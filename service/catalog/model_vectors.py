"""Statements on the vectors of one model: drawn, read, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, and_, delete, select, update

from service.catalog.models import crops, embeddings, model_removals

__all__ = ["StoredCrop", "delete_vectors", "of_model", "sample", "vectors_of"]

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredCrop:
    """A crop and where its image lies."""

    crop_row: int
    crop_id: UUID
    blob_id: UUID


def of_model(model_row: int) -> Any:
    """Joins a crop to its vector of a model."""
    return and_(embeddings.c.crop_row == crops.c.crop_row, embeddings.c.model_row == model_row)


def delete_vectors(connection: Connection, model_row: int, *, limit: int) -> int:
    """Delete the next vectors of a retired model; returns how many."""
    removal = model_removals.c.model_row == model_row
    last = connection.execute(select(model_removals.c.last_row).where(removal)).scalar()
    if last is None:
        return 0
    rows = connection.execute(
        select(embeddings.c.crop_row)
        .where(embeddings.c.model_row == model_row, embeddings.c.crop_row > last)
        .order_by(embeddings.c.crop_row)
        .limit(limit)
    )
    found = list(rows.scalars())
    if found:
        connection.execute(
            delete(embeddings).where(
                embeddings.c.model_row == model_row,
                embeddings.c.crop_row > last,
                embeddings.c.crop_row <= found[-1],
            )
        )
        connection.execute(update(model_removals).where(removal).values(last_row=found[-1]))
    return len(found)


def sample(
    connection: Connection, gallery_row: int, model_row: int, starts: Sequence[int]
) -> list[tuple[StoredCrop, Vector]]:
    """The crops with a vector of the model at or next above each of these rows, each crop once."""
    statement = (
        select(crops.c.crop_row, crops.c.crop_id, crops.c.blob_id, embeddings.c.vector)
        .join(embeddings, of_model(model_row))
        .where(crops.c.gallery_row == gallery_row)
        .order_by(crops.c.crop_row)
        .limit(1)
    )
    found: dict[int, tuple[StoredCrop, Vector]] = {}
    for start in starts:
        row = connection.execute(statement.where(crops.c.crop_row >= start)).first()
        if row is not None:
            found[row.crop_row] = StoredCrop(*row[:3]), _vector(row.vector)
    return list(found.values())


def vectors_of(connection: Connection, model_row: int, rows: Sequence[int]) -> dict[int, Vector]:
    """The vectors that a model has of these crops (a few thousand at most), by row."""
    found = connection.execute(
        select(embeddings.c.crop_row, embeddings.c.vector).where(
            embeddings.c.model_row == model_row, embeddings.c.crop_row.in_(rows)
        )
    )
    return {row.crop_row: _vector(row.vector) for row in found}


def _vector(data: bytes) -> Vector:
    return np.frombuffer(data, dtype="<f4").astype(np.float32)
