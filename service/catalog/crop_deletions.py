"""Statements that delete many crops at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    bindparam,
    delete,
    insert,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from service.catalog.change_log import log_crops, take_positions
from service.catalog.models import (
    CHANGE_CROP_DELETED,
    CHANGE_CROPS_DROPPED,
    blob_removals,
    cameras,
    changes,
    crops,
    embeddings,
    galleries,
)
from service.domain.identifier import image_key

__all__ = ["delete_instances", "drop_before", "drop_of_cameras", "remove_rows", "stored_instances"]

# SQLite takes at most 32,766 parameters a statement.
MAX_IN = 10_000

_MICROSECOND = timedelta(microseconds=1)


def delete_instances(connection: Connection, blob_ids: Sequence[UUID], *, now: datetime) -> int:
    """Delete the crops that are these stored instances, as ``delete_crop`` does; returns how many
    there were.
    """
    deleted = 0
    for start in range(0, len(blob_ids), MAX_IN):
        chosen = crops.c.blob_id.in_(blob_ids[start : start + MAX_IN])
        statement = select(galleries.c.gallery_row, galleries.c.name).join(
            crops, crops.c.gallery_row == galleries.c.gallery_row
        )
        found = connection.execute(statement.where(chosen).distinct()).all()
        # In one order everywhere, so that two writers cannot wait for each other.
        for gallery_row, name in sorted(tuple(row) for row in found):
            take_positions(connection, gallery_row, 0)
            rows = connection.execute(
                select(crops.c.crop_row, crops.c.crop_id, crops.c.blob_id)
                .where(chosen, crops.c.gallery_row == gallery_row)
                .order_by(crops.c.crop_row)
            ).all()
            if not rows:
                continue
            newest = take_positions(connection, gallery_row, len(rows))
            keys = [image_key(name, row.blob_id) for row in rows]
            remove_rows(connection, [row.crop_row for row in rows], keys, now=now)
            first = newest - len(rows) + 1
            ids = [row.crop_id for row in rows]
            log_crops(connection, gallery_row, CHANGE_CROP_DELETED, ids, first, now)
            deleted += len(rows)
    return deleted


def stored_instances(connection: Connection, blob_ids: Sequence[UUID]) -> list[UUID]:
    """Those of these instances (at most 10,000) that are stored; converts no value by its type,
    because a start asks for every erasure there ever was.
    """
    column: ColumnElement[Any] = type_coerce(crops.c.blob_id, NullType)
    statement = select(column).where(column.in_(bindparam("ids", expanding=True)))
    found = connection.execute(statement, {"ids": [blob_id.bytes for blob_id in blob_ids]})
    return [UUID(bytes=bytes(blob_id)) for blob_id in found.scalars()]


def drop_before(
    connection: Connection,
    gallery_row: int,
    cut_off: datetime,
    *,
    gallery: str,
    most: int,
    now: datetime,
) -> list[str]:
    """Delete the oldest crops captured before a time, with one entry in the log; returns the keys
    of their images, none when there was nothing to delete.

    The entry's own time may be earlier, so that it is true of everything captured before it.

    Args:
        connection: In a transaction.
        gallery_row: Whose crops.
        cut_off: What was captured before it goes.
        gallery: Name of the gallery.
        most: Crops to delete; exceeded only by crops of one microsecond.
        now: Time of the change.
    """
    take_positions(connection, gallery_row, 0)
    inside = crops.c.gallery_row == gallery_row, crops.c.capture_time < cut_off
    oldest = select(crops.c.capture_time).where(*inside).order_by(crops.c.capture_time)
    first = connection.execute(oldest.limit(1)).scalar()
    if first is None:
        return []
    following = connection.execute(oldest.offset(most).limit(1)).scalar()
    if following is not None:
        cut_off = following if following > first else first + _MICROSECOND
    chosen = crops.c.gallery_row == gallery_row, crops.c.capture_time < cut_off
    rows = connection.execute(select(crops.c.crop_row, crops.c.blob_id).where(*chosen)).all()
    keys = [image_key(gallery, row.blob_id) for row in rows]
    for start in range(0, len(rows), MAX_IN):
        part = slice(start, start + MAX_IN)
        remove_rows(connection, [row.crop_row for row in rows[part]], keys[part], now=now)
    connection.execute(
        insert(changes).values(
            gallery_row=gallery_row,
            position=take_positions(connection, gallery_row, 1),
            kind=CHANGE_CROPS_DROPPED,
            cut_off=cut_off,
            create_time=now,
        )
    )
    return keys


def drop_of_cameras(
    connection: Connection,
    gallery_row: int,
    cut_offs: Mapping[float | None, datetime],
    *,
    gallery: str,
    most: int,
    now: datetime,
) -> list[str]:
    """Delete crops that cameras captured before a time of their own, with one entry in the log for
    each crop: followers need not know of cameras' own times. Returns the keys of their images.

    Args:
        connection: In a transaction.
        gallery_row: Whose crops.
        cut_offs: By a camera's own retention in days, what such cameras captured before goes.
        gallery: Name of the gallery.
        most: Crops to delete, at most 10,000.
        now: Time of the change.
    """
    take_positions(connection, gallery_row, 0)
    rows: list[Row[int, UUID, UUID]] = []
    for days, cut_off in cut_offs.items():
        alike = select(cameras.c.camera_row).where(
            cameras.c.gallery_row == gallery_row,
            cameras.c.retention_days.is_not_distinct_from(days),
        )
        rows += connection.execute(
            select(crops.c.crop_row, crops.c.crop_id, crops.c.blob_id)
            .where(crops.c.camera_row.in_(alike), crops.c.capture_time < cut_off)
            .limit(most - len(rows))
        ).all()
        if len(rows) == most:
            break
    if not rows:
        return []
    newest = take_positions(connection, gallery_row, len(rows))
    keys = [image_key(gallery, row.blob_id) for row in rows]
    remove_rows(connection, [row.crop_row for row in rows], keys, now=now)
    ids = [row.crop_id for row in rows]
    log_crops(connection, gallery_row, CHANGE_CROP_DELETED, ids, newest - len(rows) + 1, now)
    return keys


def remove_rows(
    connection: Connection, rows: Sequence[int], keys: Sequence[str], *, now: datetime
) -> None:
    """Delete crops by row (at most 10,000) with their vectors, and remember that the images with
    these keys must go.
    """
    connection.execute(delete(embeddings).where(embeddings.c.crop_row.in_(rows)))
    connection.execute(delete(crops).where(crops.c.crop_row.in_(rows)))
    connection.execute(
        insert(blob_removals), [{"blob_key": key, "create_time": now} for key in keys]
    )
