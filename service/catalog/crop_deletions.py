"""Statements that delete many crops at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select

from service.catalog.change_log import log_crops, take_positions
from service.catalog.models import (
    CHANGE_CROP_DELETED,
    blob_removals,
    crops,
    embeddings,
    galleries,
)
from service.domain.identifier import image_key

__all__ = ["delete_instances", "remove_rows"]

# SQLite takes at most 32,766 parameters a statement.
MAX_IN = 10_000


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
