"""The ordered log of each gallery, which replicas follow: positions taken, changes written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, insert, select, update

from service.catalog.database_clock import time_of_change
from service.catalog.models import CHANGE_CROP_ADDED, changes, galleries

__all__ = ["generation_of", "give_back_positions", "log_crops", "position_added", "take_positions"]


def take_positions(connection: Connection, gallery_row: int, count: int) -> int:
    """Lock the gallery's log until the commit and take ``count`` positions; returns the last."""
    connection.execute(
        update(galleries)
        .where(galleries.c.gallery_row == gallery_row)
        .values(position=galleries.c.position + count)
    )
    statement = select(galleries.c.position).where(galleries.c.gallery_row == gallery_row)
    return int(connection.execute(statement).scalar_one())


def generation_of(connection: Connection, gallery_row: int) -> int:
    """How often the gallery's models have changed; cannot change while the log is locked."""
    statement = select(galleries.c.generation).where(galleries.c.gallery_row == gallery_row)
    return int(connection.execute(statement).scalar_one())


def give_back_positions(connection: Connection, gallery_row: int, count: int) -> None:
    """Return the last positions taken, still under the lock: the log has no gaps."""
    take_positions(connection, gallery_row, -count)


def position_added(connection: Connection, gallery_row: int, crop_id: UUID) -> int:
    """Where the log says that a stored crop was added; looked for from the newest change on."""
    statement = select(changes.c.position).where(
        changes.c.gallery_row == gallery_row,
        changes.c.crop_id == crop_id,
        changes.c.kind == CHANGE_CROP_ADDED,
    )
    newest = statement.order_by(changes.c.position.desc()).limit(1)
    return int(connection.execute(newest).scalar_one())


def log_crops(
    connection: Connection,
    gallery_row: int,
    kind: int,
    ids: Sequence[UUID],
    first: int,
    now: datetime,
) -> None:
    """Write one change of this kind for each crop, at positions that begin with ``first``."""
    connection.execute(
        insert(changes).values(create_time=time_of_change(connection, now)),
        [
            {
                "gallery_row": gallery_row,
                "position": first + offset,
                "kind": kind,
                "crop_id": crop_id,
            }
            for offset, crop_id in enumerate(ids)
        ],
    )
