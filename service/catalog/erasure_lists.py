"""Statements that make the list of an erasure, and mark what becomes of the crops on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update

from service.catalog.models import erasure_crops, erasures
from service.domain.erasure import CropOutcome, ErasureState

__all__ = ["Listed", "add_listed", "begin_listing", "discard_listing", "mark", "planned"]


class Listed(NamedTuple):
    """A crop to list; ``blob_id`` is None where nothing is stored under the id."""

    crop_id: UUID
    blob_id: UUID | None
    score: float | None = None


def begin_listing(
    connection: Connection,
    gallery_row: int,
    *,
    erasure_id: UUID,
    subject: str,
    reason: str,
    principal: str,
    now: datetime,
) -> int:
    """Begin an erasure whose list is yet to be made; returns its key."""
    row = connection.execute(
        insert(erasures)
        .values(
            gallery_row=gallery_row,
            erasure_id=erasure_id,
            state=ErasureState.LISTING.value,
            subject=subject,
            reason=reason,
            principal=principal,
            confirmer="",
            listed=0,
            kept=0,
            removed=0,
            absent=0,
            more=False,
            vectors={},
            create_time=now,
            receipt="",
        )
        .returning(erasures.c.erasure_row)
    )
    return int(row.scalar_one())


def add_listed(
    connection: Connection, erasure_row: int, found: Sequence[Listed], *, first: int
) -> None:
    """Put crops on the list, at places that begin with ``first``."""
    connection.execute(
        insert(erasure_crops).values(erasure_row=erasure_row),
        [
            {
                "place": first + offset,
                "crop_id": item.crop_id,
                "blob_id": item.blob_id,
                "score": item.score,
                "outcome": (
                    CropOutcome.ABSENT if item.blob_id is None else CropOutcome.LISTED
                ).value,
            }
            for offset, item in enumerate(found)
        ],
    )


def planned(connection: Connection, erasure_row: int, *, more: bool) -> None:
    """The list is whole: it may be reviewed."""
    counts = _counts(connection, erasure_row)
    connection.execute(
        update(erasures)
        .where(erasures.c.erasure_row == erasure_row)
        .values(
            state=ErasureState.PLANNED.value,
            listed=counts[CropOutcome.LISTED],
            absent=counts[CropOutcome.ABSENT],
            more=more,
        )
    )


def discard_listing(connection: Connection, *, before: datetime, row: int | None = None) -> int:
    """Forget lists that were never finished: this one, or all that were begun before a time."""
    unfinished = erasures.c.state == ErasureState.LISTING.value
    chosen = erasures.c.create_time < before if row is None else erasures.c.erasure_row == row
    rows = connection.execute(select(erasures.c.erasure_row).where(unfinished, chosen)).scalars()
    found = list(rows)
    for each in found:
        connection.execute(delete(erasure_crops).where(erasure_crops.c.erasure_row == each))
        connection.execute(delete(erasures).where(erasures.c.erasure_row == each))
    return len(found)


def mark(
    connection: Connection,
    erasure_row: int,
    places: Sequence[int],
    outcome: CropOutcome,
    removed: datetime | None,
) -> None:
    """Note what became of the crops at these places, and when they were removed."""
    if places:
        connection.execute(
            update(erasure_crops)
            .where(erasure_crops.c.erasure_row == erasure_row, erasure_crops.c.place.in_(places))
            .values(outcome=outcome.value, remove_time=removed)
        )


def _counts(connection: Connection, erasure_row: int) -> Counter[Any]:
    table = erasure_crops
    rows = connection.execute(
        select(table.c.outcome, func.count().label("crops"))
        .where(table.c.erasure_row == erasure_row)
        .group_by(table.c.outcome)
    )
    return Counter({CropOutcome(row.outcome): row.crops for row in rows})
