"""Statements that read a gallery's log of changes."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, select

from service.catalog.models import (
    CHANGE_CROP_ADDED,
    CHANGE_CROP_DELETED,
    changes,
    galleries,
)
from service.domain.instant import to_micros

__all__ = ["changed_crops", "entry_at", "newest_position"]


def newest_position(connection: Connection, gallery_row: int) -> int:
    """Position of the newest change, 0 when there is none."""
    statement = select(galleries.c.position).where(galleries.c.gallery_row == gallery_row)
    return int(connection.execute(statement).scalar_one())


def entry_at(connection: Connection, gallery_row: int, position: int) -> str | None:
    """What stands at a position, as text that no other log has there; empty at 0, None when
    nothing does.
    """
    if position == 0:
        return ""
    row = connection.execute(
        select(changes).where(changes.c.gallery_row == gallery_row, changes.c.position == position)
    ).first()
    if row is None:
        return None
    subject = row.crop_id.hex if row.crop_id is not None else f"camera {row.camera_row}"
    return f"{row.kind} {subject} {to_micros(row.create_time)}"


def changed_crops(
    connection: Connection, gallery_row: int, *, after: int, limit: int
) -> tuple[list[UUID], int]:
    """Crops added or deleted by the next changes after a position, each once; and the position of
    the last change looked at, ``after`` when there was none.
    """
    rows = connection.execute(
        select(changes.c.position, changes.c.kind, changes.c.crop_id)
        .where(changes.c.gallery_row == gallery_row, changes.c.position > after)
        .order_by(changes.c.position)
        .limit(limit)
    ).all()
    of_crops = (CHANGE_CROP_ADDED, CHANGE_CROP_DELETED)
    ids = dict.fromkeys(row.crop_id for row in rows if row.kind in of_crops)
    return list(ids), int(rows[-1].position) if rows else after
