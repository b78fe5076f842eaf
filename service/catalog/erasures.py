"""Statements that decide about an erasure whose list is made: confirmed, cancelled, done."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, select, update

from resight.errors import FailedPrecondition, InvalidArgument
from service.catalog.crop_deletions import MAX_IN
from service.catalog.erasure_lists import mark
from service.catalog.erasure_reads import find_erasure
from service.catalog.models import erasure_crops, erasures
from service.domain.erasure import CropOutcome, Erasure, ErasureState

__all__ = ["cancel", "confirm", "finish"]


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
        mark(connection, erasure_row, [row.place for row in found], CropOutcome.KEPT, None)
        kept += len(found)
    return kept
