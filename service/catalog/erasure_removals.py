"""The statements that remove the crops of an erasure, a batch of its list at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, and_, func, select, update

from service.catalog.change_log import log_crops, take_positions
from service.catalog.crop_deletions import remove_rows
from service.catalog.erasure_lists import mark
from service.catalog.models import (
    CHANGE_CROP_DELETED,
    crops,
    embeddings,
    erasure_crops,
    erasures,
)
from service.domain.erasure import CropOutcome, Erasure
from service.domain.identifier import image_key

__all__ = ["Removed", "count_removed", "remove_next", "vectors_by_model"]


@dataclass(frozen=True, slots=True)
class Removed:
    """What a batch has done: the images that must go, and the place it came to; None after the
    last.
    """

    keys: Sequence[str]
    place: int | None


def remove_next(
    connection: Connection,
    erasure: Erasure,
    *,
    after: int,
    most: int,
    now: datetime,
    removing: Callable[[UUID, UUID], None],
) -> Removed:
    """Delete the next crops of a list, as ``crop_writes.delete_crop`` does, and note it there, all
    in one transaction under the gallery's lock: several processes may do it at the same time.

    Args:
        connection: In a transaction.
        erasure: Confirmed.
        after: The place that the batch before came to, 0 at first.
        most: Crops to look at, at most 10,000.
        now: Time of the change.
        removing: Told of the id and the stored instance of each, gone already or not.
    """
    take_positions(connection, erasure.gallery_row, 0)
    table = erasure_crops
    stored = and_(crops.c.blob_id == table.c.blob_id, crops.c.gallery_row == erasure.gallery_row)
    rows = connection.execute(
        select(table.c.place, table.c.crop_id, table.c.blob_id, crops.c.crop_row)
        .select_from(table.outerjoin(crops, stored))
        .where(
            table.c.erasure_row == erasure.erasure_row,
            table.c.place > after,
            table.c.outcome == CropOutcome.LISTED.value,
        )
        .order_by(table.c.place)
        .limit(most)
    ).all()
    if not rows:
        return Removed((), None)
    there = [row for row in rows if row.crop_row is not None]
    for row in rows:
        removing(row.crop_id, row.blob_id)
    keys = [image_key(erasure.gallery, row.blob_id) for row in there]
    vectors: Counter[str] = Counter()
    if there:
        crop_rows = [row.crop_row for row in there]
        vectors = vectors_by_model(connection, crop_rows)
        newest = take_positions(connection, erasure.gallery_row, len(there))
        remove_rows(connection, crop_rows, keys, now=now)
        ids = [row.crop_id for row in there]
        first = newest - len(there) + 1
        log_crops(connection, erasure.gallery_row, CHANGE_CROP_DELETED, ids, first, now)
    mark(connection, erasure.erasure_row, [row.place for row in there], CropOutcome.REMOVED, now)
    gone = [row.place for row in rows if row.crop_row is None]
    mark(connection, erasure.erasure_row, gone, CropOutcome.ABSENT, None)
    count_removed(connection, erasure.erasure_row, len(there), len(gone), vectors)
    return Removed(keys, rows[-1].place)


def count_removed(
    connection: Connection, erasure_row: int, removed: int, absent: int, vectors: Counter[str]
) -> None:
    """Add to what an erasure has removed and not found."""
    own = erasures.c.erasure_row == erasure_row
    before = connection.execute(select(erasures.c.vectors).where(own)).scalar_one()
    connection.execute(
        update(erasures)
        .where(own)
        .values(
            removed=erasures.c.removed + removed,
            absent=erasures.c.absent + absent,
            vectors=dict(Counter(before) + vectors),
        )
    )


def vectors_by_model(connection: Connection, crop_rows: Sequence[int]) -> Counter[str]:
    """How many vectors these crops (at most 10,000) have, by key of model."""
    counted = connection.execute(
        select(embeddings.c.model_row, func.count().label("vectors"))
        .where(embeddings.c.crop_row.in_(crop_rows))
        .group_by(embeddings.c.model_row)
    )
    return Counter({str(row.model_row): row.vectors for row in counted})
