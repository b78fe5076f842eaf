"""Statements by which a gallery is compared with itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Connection, Text, and_, cast, func, select, type_coerce

from service.catalog.models import blob_removals, changes, crops, embeddings, galleries
from service.catalog.records import GalleryRecord

__all__ = [
    "CheckedCrop",
    "ImageRecord",
    "checked_crops",
    "foreign_vectors",
    "image_records",
    "log_gaps",
    "pending_removals",
    "with_vector",
]


@dataclass(frozen=True, slots=True)
class CheckedCrop:
    """A crop with its vector as stored, None when it has none of the model."""

    crop_id: UUID
    camera_row: int
    micros: int
    zone: str
    track_id: str
    attributes: Mapping[str, str]
    vector: bytes | None


class ImageRecord(NamedTuple):
    """A crop, where its image lies, and its digest."""

    crop_row: int
    crop_id: UUID
    blob_id: UUID
    sha256: bytes


def checked_crops(
    connection: Connection, gallery: GalleryRecord, *, block: int
) -> Iterator[list[CheckedCrop]]:
    """Every crop of a gallery in the order of its rows, in blocks."""
    of_model = and_(
        embeddings.c.crop_row == crops.c.crop_row, embeddings.c.model_row == gallery.model_row
    )
    statement = (
        select(
            crops.c.crop_row,
            crops.c.crop_id,
            crops.c.camera_row,
            type_coerce(crops.c.capture_time, BigInteger).label("micros"),
            crops.c.zone,
            crops.c.track_id,
            cast(crops.c.attributes, Text).label("json"),
            embeddings.c.vector,
        )
        .outerjoin(embeddings, of_model)
        .where(crops.c.gallery_row == gallery.gallery_row)
        .order_by(crops.c.crop_row)
        .limit(block)
    )
    newest = -1
    while rows := connection.execute(statement.where(crops.c.crop_row > newest)).all():
        newest = rows[-1].crop_row
        yield [
            CheckedCrop(
                row.crop_id,
                row.camera_row,
                row.micros,
                row.zone,
                row.track_id,
                {} if row.json == "{}" else json.loads(row.json),
                None if row.vector is None else bytes(row.vector),
            )
            for row in rows
        ]


def image_records(
    connection: Connection, gallery_row: int, *, after: int, limit: int
) -> list[ImageRecord]:
    """The next crops of a gallery after a row, in the order of the rows."""
    statement = (
        select(crops.c.crop_row, crops.c.crop_id, crops.c.blob_id, crops.c.sha256)
        .where(crops.c.gallery_row == gallery_row, crops.c.crop_row > after)
        .order_by(crops.c.crop_row)
        .limit(limit)
    )
    return [
        ImageRecord(row.crop_row, row.crop_id, row.blob_id, bytes(row.sha256))
        for row in connection.execute(statement)
    ]


def log_gaps(connection: Connection, gallery_row: int) -> list[int]:
    """Positions that the log lacks, the first of each gap."""
    statement = select(galleries.c.position).where(galleries.c.gallery_row == gallery_row)
    newest = int(connection.execute(statement).scalar_one())
    inside = changes.c.gallery_row == gallery_row
    count, last = connection.execute(
        select(func.count(), func.max(changes.c.position)).where(inside)
    ).one()
    if (count, last or 0) == (newest, newest):
        return []
    gaps, expected = [], 1
    positions = select(changes.c.position).where(inside).order_by(changes.c.position)
    for position in connection.execution_options(yield_per=10_000).scalars(positions):
        if position != expected:
            gaps.append(expected)
        expected = position + 1
    if expected <= newest:
        gaps.append(expected)
    elif expected > newest + 1:
        # The log is ahead of the gallery's own count.
        gaps.append(newest + 1)
    return gaps


def foreign_vectors(connection: Connection, gallery: GalleryRecord) -> list[UUID]:
    """Crops of other galleries that have a vector of this gallery's model."""
    statement = (
        select(crops.c.crop_id)
        .join(embeddings, embeddings.c.crop_row == crops.c.crop_row)
        .where(
            embeddings.c.model_row == gallery.model_row,
            crops.c.gallery_row != gallery.gallery_row,
        )
    )
    return list(connection.scalars(statement))


def with_vector(
    connection: Connection, gallery: GalleryRecord, crop_ids: Sequence[UUID]
) -> set[UUID]:
    """Which of these crops (a few thousand at most) have a vector of this gallery's model."""
    statement = (
        select(crops.c.crop_id)
        .join(embeddings, embeddings.c.crop_row == crops.c.crop_row)
        .where(
            crops.c.gallery_row == gallery.gallery_row,
            crops.c.crop_id.in_(crop_ids),
            embeddings.c.model_row == gallery.model_row,
        )
    )
    return set(connection.scalars(statement))


def pending_removals(connection: Connection, keys: Sequence[str]) -> dict[str, datetime]:
    """Which of these images (a few thousand at most) are of deleted crops and noted for removal,
    and since when.
    """
    removal = blob_removals.c
    chosen = select(removal.blob_key, removal.create_time).where(removal.blob_key.in_(keys))
    return {row.blob_key: row.create_time for row in connection.execute(chosen)}
