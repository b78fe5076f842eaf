"""Statements that carry an erasure out again, as the ledger has it.

A crop that the ledger names may stand on the list of an erasure that is under way: the process was
killed after the ledger and before the commit, or a catalog was restored from the middle of it. Then
it is that erasure that removes it, and its receipt says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, and_, select

from service.catalog.change_log import take_positions
from service.catalog.crop_deletions import MAX_IN, delete_instances
from service.catalog.erasure_lists import mark
from service.catalog.erasure_removals import count_removed, vectors_by_model
from service.catalog.models import crops, erasure_crops, erasures
from service.domain.erasure import CropOutcome, ErasureState

__all__ = ["erase_again"]


def erase_again(connection: Connection, blob_ids: Sequence[UUID], *, now: datetime) -> int:
    """Delete the crops that are these stored instances; returns how many there were."""
    for start in range(0, len(blob_ids), MAX_IN):
        _mark_listed(connection, blob_ids[start : start + MAX_IN], now)
    return delete_instances(connection, blob_ids, now=now)


def _mark_listed(connection: Connection, blob_ids: Sequence[UUID], now: datetime) -> None:
    table = erasure_crops
    statement = (
        select(table.c.erasure_row, table.c.place, crops.c.crop_row, crops.c.gallery_row)
        .join(erasures, erasures.c.erasure_row == table.c.erasure_row)
        .join(
            crops,
            and_(crops.c.blob_id == table.c.blob_id, crops.c.gallery_row == erasures.c.gallery_row),
        )
        .where(
            crops.c.blob_id.in_(blob_ids),
            erasures.c.state == ErasureState.RUNNING.value,
            table.c.outcome == CropOutcome.LISTED.value,
        )
        .order_by(table.c.erasure_row, table.c.place)
    )
    found = connection.execute(statement).all()
    if not found:
        return
    # As delete_instances does; another process may be at the same erasure.
    for gallery_row in sorted({row.gallery_row for row in found}):
        take_positions(connection, gallery_row, 0)
    lists: dict[int, dict[int, int]] = {}
    taken: set[int] = set()
    for row in connection.execute(statement).all():
        if row.crop_row not in taken:
            taken.add(row.crop_row)
            lists.setdefault(row.erasure_row, {})[row.place] = row.crop_row
    for erasure_row, places in lists.items():
        vectors = vectors_by_model(connection, list(places.values()))
        mark(connection, erasure_row, list(places), CropOutcome.REMOVED, now)
        count_removed(connection, erasure_row, len(places), 0, vectors)
