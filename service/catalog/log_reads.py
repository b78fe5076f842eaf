"""Statements that read a gallery's log of changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, select

from service.catalog.models import changes, galleries
from service.domain.instant import to_micros

__all__ = ["Change", "changes_after", "entry_at", "newest_position"]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry; ``kind`` decides which of the others are there."""

    position: int
    kind: int
    crop_id: UUID | None
    camera_row: int | None
    cut_off: datetime | None


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


def changes_after(
    connection: Connection, gallery_row: int, *, after: int, limit: int
) -> list[Change]:
    """The next changes after a position, in order."""
    rows = connection.execute(
        select(
            changes.c.position,
            changes.c.kind,
            changes.c.crop_id,
            changes.c.camera_row,
            changes.c.cut_off,
        )
        .where(changes.c.gallery_row == gallery_row, changes.c.position > after)
        .order_by(changes.c.position)
        .limit(limit)
    )
    return [Change(*row) for row in rows]
