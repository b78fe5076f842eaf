"""Statements that change erasures: listed, confirmed, carried out in batches, ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from resight.errors import FailedPrecondition, InvalidArgument
from service.catalog.change_log import log_crops, take_positions
from service.catalog.crop_deletions import MAX_IN, remove_rows
from service.catalog.erasure_reads import find_erasure
from service.catalog.models import (
    CHANGE_CROP_DELETED,
    crops,
    embeddings,
    erasure_crops,
    erasures,
)
from service.domain.erasure import CropOutcome, Erasure, ErasureState
from service.domain.identifier import image_key

__all__ = [
    "Listed",
    "Removed",
    "add_listed",
    "begin_listing",
    "cancel",
    "confirm",
    "discard_listing",
    "finish",
    "planned",
    "remove_next",
]


class Listed(NamedTuple):
    """A crop to list; ``blob_id`` is None where nothing is stored under the id."""

    crop_id: UUID
    blob_id: UUID | None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Removed:
    """What a batch has done: the images that must go, and the place it came to; None after the
    last.
    """

    keys: Sequence[str]
    place: int | None


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


def confirm(
    connection: Connection,
    gallery_row: int,
    erasure_id: UUID,
    *,
    keep: Collection[UUID],
    crops_confirmed: int,
    confirmer: str,
    now: datetime,
) -> Erasure:
    """Let a reviewed erasure begin; one that was confirmed already stays as it is.

    Raises:
        NotFound: no such erasure.
        FailedPrecondition: it was cancelled, or the reviewer counted other crops.
        InvalidArgument: a crop to keep is not on the list.
    """
    erasure = _locked(connection, gallery_row, erasure_id)
    if erasure.state is ErasureState.CANCELLED:
        raise FailedPrecondition(
            f"erasure {erasure_id} was cancelled; make another",
            field="erasure_id",
            reason="ERASURE_CANCELLED",
        )
    if erasure.state is not ErasureState.PLANNED:
        _require_count(erasure.listed, crops_confirmed)
        return erasure
    kept = _keep(connection, erasure.erasure_row, keep)
    _require_count(erasure.listed - kept, crops_confirmed)
    connection.execute(
        update(erasures)
        .where(erasures.c.erasure_row == erasure.erasure_row)
        .values(
            state=ErasureState.RUNNING.value,
            confirmer=confirmer,
            confirm_time=now,
            listed=erasure.listed - kept,
            kept=kept,
        )
    )
    return find_erasure(connection, gallery_row, erasure_id)


def cancel(connection: Connection, gallery_row: int, erasure_id: UUID, *, now: datetime) -> Erasure:
    """Withdraw an erasure that was not confirmed; again changes nothing.

    Raises:
        NotFound: no such erasure.
        FailedPrecondition: it was confirmed.
    """
    erasure = _locked(connection, gallery_row, erasure_id)
    if erasure.state is ErasureState.CANCELLED:
        return erasure
    if erasure.state is not ErasureState.PLANNED:
        raise FailedPrecondition(
            f"erasure {erasure_id} was confirmed; what it removes cannot be brought back",
            field="erasure_id",
            reason="ERASURE_CONFIRMED",
        )
    connection.execute(
        update(erasures)
        .where(erasures.c.erasure_row == erasure.erasure_row)
        .values(state=ErasureState.CANCELLED.value, complete_time=now)
    )
    return find_erasure(connection, gallery_row, erasure_id)


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
        vectors = _vectors_by_model(connection, crop_rows)
        newest = take_positions(connection, erasure.gallery_row, len(there))
        remove_rows(connection, crop_rows, keys, now=now)
        ids = [row.crop_id for row in there]
        first = newest - len(there) + 1
        log_crops(connection, erasure.gallery_row, CHANGE_CROP_DELETED, ids, first, now)
    _mark(connection, erasure.erasure_row, [row.place for row in there], CropOutcome.REMOVED, now)
    gone = [row.place for row in rows if row.crop_row is None]
    _mark(connection, erasure.erasure_row, gone, CropOutcome.ABSENT, None)
    _count_removed(connection, erasure.erasure_row, len(there), len(gone), vectors)
    return Removed(keys, rows[-1].place)


def finish(connection: Connection, erasure_row: int, *, receipt: str, now: datetime) -> bool:
    """Store the receipt of an erasure that removed everything; False when it has one already."""
    changed = connection.execute(
        update(erasures)
        .where(
            erasures.c.erasure_row == erasure_row,
            erasures.c.state == ErasureState.RUNNING.value,
        )
        .values(state=ErasureState.DONE.value, complete_time=now, receipt=receipt)
    )
    return bool(changed.rowcount)


def _locked(connection: Connection, gallery_row: int, erasure_id: UUID) -> Erasure:
    # Its row is changed first, so that of two who decide at once one waits for the other.
    connection.execute(
        update(erasures)
        .where(erasures.c.gallery_row == gallery_row, erasures.c.erasure_id == erasure_id)
        .values(listed=erasures.c.listed)
    )
    return find_erasure(connection, gallery_row, erasure_id)


def _require_count(listed: int, confirmed: int) -> None:
    if listed != confirmed:
        raise FailedPrecondition(
            f"{confirmed} crops are confirmed, but {listed} of the list would go; look at the list "
            "again (ListErasureCrops) and confirm its number without those kept",
            field="crops",
            reason="ERASURE_COUNT_DIFFERS",
        )


def _keep(connection: Connection, erasure_row: int, keep: Collection[UUID]) -> int:
    table = erasure_crops
    wanted, kept = sorted(keep), 0
    for start in range(0, len(wanted), MAX_IN):
        part = wanted[start : start + MAX_IN]
        found = connection.execute(
            select(table.c.crop_id, table.c.place).where(
                table.c.erasure_row == erasure_row,
                table.c.crop_id.in_(part),
                table.c.outcome == CropOutcome.LISTED.value,
            )
        ).all()
        if len(found) < len(part):
            missing = next(each for each in part if each not in {row.crop_id for row in found})
            raise InvalidArgument(
                f"keep_crop_ids: crop {missing} is not on the list of this erasure",
                field="keep_crop_ids",
            )
        _mark(connection, erasure_row, [row.place for row in found], CropOutcome.KEPT, None)
        kept += len(found)
    return kept


def _mark(
    connection: Connection,
    erasure_row: int,
    places: Sequence[int],
    outcome: CropOutcome,
    removed: datetime | None,
) -> None:
    if places:
        connection.execute(
            update(erasure_crops)
            .where(erasure_crops.c.erasure_row == erasure_row, erasure_crops.c.place.in_(places))
            .values(outcome=outcome.value, remove_time=removed)
        )


def _count_removed(
    connection: Connection, erasure_row: int, removed: int, absent: int, vectors: Counter[str]
) -> None:
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


def _vectors_by_model(connection: Connection, crop_rows: Sequence[int]) -> Counter[str]:
    counted = connection.execute(
        select(embeddings.c.model_row, func.count().label("vectors"))
        .where(embeddings.c.crop_row.in_(crop_rows))
        .group_by(embeddings.c.model_row)
    )
    return Counter({str(row.model_row): row.vectors for row in counted})


def _counts(connection: Connection, erasure_row: int) -> Counter[Any]:
    table = erasure_crops
    rows = connection.execute(
        select(table.c.outcome, func.count().label("crops"))
        .where(table.c.erasure_row == erasure_row)
        .group_by(table.c.outcome)
    )
    return Counter({CropOutcome(row.outcome): row.crops for row in rows})
