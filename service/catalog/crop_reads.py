"""Statements that read crops, each on a connection of its own short transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    not_,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from service.catalog.crop_conditions import crop_conditions
from service.catalog.models import blob_removals, cameras, crops, embeddings
from service.catalog.records import CropRecord, GalleryCounts
from service.domain.crop import Crop
from service.domain.ports import RowFilter

__all__ = [
    "count_vectors",
    "counts",
    "crop",
    "crops_by_id",
    "list_crops",
    "oldest_blob_removal",
    "pending_among",
    "pending_blob_removals",
    "stored_blobs",
]

# SQLite takes at most 32,766 parameters a statement.
MAX_IN = 10_000
_ID_BYTES = type_coerce(crops.c.crop_id, NullType)


def crop(connection: Connection, gallery_row: int, crop_id: UUID) -> CropRecord | None:
    """One crop."""
    row = connection.execute(_ONE, {"gallery_row": gallery_row, "crop_id": crop_id}).first()
    return None if row is None else CropRecord(_crop(row), row.blob_id)


def crops_by_id(
    connection: Connection, gallery_row: int, ids: Sequence[UUID], *, gallery_size: int
) -> list[Crop | None]:
    """The crops with these ids, in their order; None for one that is not there.

    Most of a gallery, as a full ranking asks for, is read in one pass: looking each key up costs
    three times as much. ``gallery_size`` need not be exact.
    """
    keys = [crop_id.bytes for crop_id in ids]
    found: dict[bytes, Row[Any]] = {}
    if 2 * len(keys) > gallery_size:
        rows = connection.execute(_ALL, {"gallery_row": gallery_row})
        found.update((row[0], row) for row in rows.all())
    else:
        for start in range(0, len(keys), MAX_IN):
            chosen = {"gallery_row": gallery_row, "keys": keys[start : start + MAX_IN]}
            found.update((row[0], row) for row in connection.execute(_CHOSEN, chosen).all())
    return [
        None if (row := found.get(key)) is None else _crop(row, crop_id)
        for crop_id, key in zip(ids, keys, strict=True)
    ]


def list_crops(
    connection: Connection,
    gallery_row: int,
    *,
    chosen: RowFilter,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Crop]:
    """Crops that pass a filter, by capture time, then id, beginning after one."""
    statement = _crops(gallery_row).where(*crop_conditions(chosen))
    if after is not None:
        time, crop_id = after
        same_time = and_(crops.c.capture_time == time, crops.c.crop_id > crop_id)
        # The first condition follows from the second; it lets the index begin at the right row.
        statement = statement.where(
            crops.c.capture_time >= time, or_(crops.c.capture_time > time, same_time)
        )
    statement = statement.order_by(crops.c.capture_time, crops.c.crop_id).limit(limit)
    return [_crop(row) for row in connection.execute(statement)]


def counts(
    connection: Connection, gallery_row: int, *, chosen: RowFilter | None = None
) -> GalleryCounts:
    """How many crops pass a filter, and the first and last capture time of them."""
    row = connection.execute(
        select(func.count(), func.min(crops.c.capture_time), func.max(crops.c.capture_time)).where(
            crops.c.gallery_row == gallery_row, *crop_conditions(chosen or RowFilter())
        )
    ).one()
    return GalleryCounts(*row)


def count_vectors(
    connection: Connection, gallery_row: int, model_row: int, *, chosen: RowFilter
) -> int:
    """How many crops that pass a filter have a vector of a model."""
    statement = (
        select(func.count())
        .select_from(crops)
        .join(embeddings, embeddings.c.crop_row == crops.c.crop_row)
        .where(
            crops.c.gallery_row == gallery_row,
            embeddings.c.model_row == model_row,
            *crop_conditions(chosen),
        )
    )
    return int(connection.execute(statement).scalar_one())


def pending_blob_removals(
    connection: Connection,
    *,
    after: str,
    limit: int,
    folder: str | None = None,
    without: Collection[str] = (),
) -> list[str]:
    """Keys of images whose crops are deleted, in their order, behind one of them: of one folder of
    the blob store (a gallery's name), or of all but some.
    """
    key = blob_removals.c.blob_key
    statement = select(key).where(key > after).order_by(key).limit(limit)
    if folder is not None:
        statement = statement.where(_lies_in(folder))
    for other in without:
        statement = statement.where(not_(_lies_in(other)))
    return list(connection.execute(statement).scalars())


def _lies_in(folder: str) -> ColumnElement[bool]:
    # Databases order keys as their locale does, and LIKE may not tell "a" from "A".
    return func.substr(blob_removals.c.blob_key, 1, len(folder) + 1) == f"{folder}/"


def oldest_blob_removal(connection: Connection) -> datetime | None:
    """When the crop was deleted whose image has waited longest for its removal."""
    found: datetime | None = connection.scalar(select(func.min(blob_removals.c.create_time)))
    return found


def pending_among(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Which of these images may still lie in the blob store although their crops are deleted."""
    found: list[str] = []
    for start in range(0, len(keys), MAX_IN):
        chosen = blob_removals.c.blob_key.in_(keys[start : start + MAX_IN])
        found += connection.execute(select(blob_removals.c.blob_key).where(chosen)).scalars()
    return found


def stored_blobs(connection: Connection, blob_ids: Collection[UUID]) -> set[UUID]:
    """Which of these images belong to a crop."""
    wanted = list(blob_ids)
    found: set[UUID] = set()
    for start in range(0, len(wanted), MAX_IN):
        chosen = crops.c.blob_id.in_(wanted[start : start + MAX_IN])
        found.update(connection.execute(select(crops.c.blob_id).where(chosen)).scalars())
    return found


def _crops(gallery_row: int | BindParameter[int], *more: Any) -> Select[Any]:
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


# Made once: every search reads its matches, and making the statement costs as much as running it.
_ALL = _crops(bindparam("gallery_row", type_=BigInteger))
_CHOSEN = _ALL.where(_ID_BYTES.in_(bindparam("keys", expanding=True)))
_ONE = _crops(bindparam("gallery_row", type_=BigInteger), crops.c.blob_id).where(
    crops.c.crop_id == bindparam("crop_id")
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
