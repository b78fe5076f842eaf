"""The log of a gallery followed: what it says is read from the catalog and put into indexes.

A change names a crop; what the catalog holds of that crop now is what an index then holds. So a
change may be applied twice, or late, and the index is right as soon as the newest was applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import Connection

from service.catalog import log_reads, vector_reads
from service.catalog.log_reads import Change
from service.catalog.models import CHANGE_VECTOR_ADDED
from service.catalog.records import GalleryRecord
from service.domain.instant import to_micros
from service.domain.ports import GalleryIndex

__all__ = ["BLOCK", "Target", "follow", "reread"]

BLOCK = 4096

# The vectors of which model go into which index.
Target = tuple[GalleryRecord, GalleryIndex]


def follow(
    connection: Connection,
    gallery_row: int,
    targets: Sequence[Target],
    *,
    after: int,
    told: Callable[[Change], None] = lambda _: None,
) -> tuple[int, int]:
    """Apply every change since a position that this connection sees.

    Args:
        connection: Sees one state throughout.
        gallery_row: Whose log.
        targets: Indexes to bring up to date.
        after: The position they are up to.
        told: Gets the changes that are not of crops.

    Returns:
        The newest position, and how many crops were named.
    """
    count = 0
    while changes := log_reads.changes_after(connection, gallery_row, after=after, limit=BLOCK):
        waiting: dict[UUID, bool] = {}
        for change in changes:
            if change.crop_id is not None:
                whole = change.kind != CHANGE_VECTOR_ADDED
                waiting[change.crop_id] = whole or waiting.get(change.crop_id, False)
            elif change.cut_off is not None:
                # Before the crops that came later, however old they are.
                count += _applied(connection, targets, waiting)
                for _, index in targets:
                    index.drop_before(to_micros(change.cut_off))
            else:
                told(change)
        count += _applied(connection, targets, waiting)
        after = changes[-1].position
    return after, count


def reread(connection: Connection, target: Target, changed: Sequence[UUID]) -> None:
    """Make an index hold what the catalog says of these crops now."""
    record, index = target
    for start in range(0, len(changed), BLOCK):
        ids = changed[start : start + BLOCK]
        index.remove(ids)
        rows = vector_reads.vectors_of(connection, record, ids)
        if rows is not None:
            index.add(rows)


def _applied(connection: Connection, targets: Sequence[Target], waiting: dict[UUID, bool]) -> int:
    """Reread crops; of those that only got a vector of one more model (False), the indexes that
    hold them already are left alone, and so are the searches in them.
    """
    ids = [crop_id for crop_id, whole in waiting.items() if whole]
    more = [crop_id for crop_id, whole in waiting.items() if not whole]
    waiting.clear()
    for target in targets:
        if ids:
            reread(connection, target, ids)
        if more:
            held = set(target[1].vectors_of(more)[0].tolist())
            lacking = [crop_id for place, crop_id in enumerate(more) if place not in held]
            if lacking:
                reread(connection, target, lacking)
    return len(ids) + len(more)
