"""Statements that read erasures, their lists, and the crops that a list is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, and_, case, func, select

from resight.errors import NotFound
from service.catalog.crop_conditions import crop_conditions
from service.catalog.crop_reads import crops_by_id
from service.catalog.models import (
    crops,
    erasure_crops,
    erasures,
    galleries,
)
from service.domain.erasure import CropOutcome, Erasure, ErasureState, ListedCrop
from service.domain.ports import RowFilter

__all__ = [
    "find_erasure",
    "instances",
    "list_crops",
    "list_erasures",
    "open_erasures",
    "outcome_ids",
    "running_erasures",
    "stored_in",
]

_JOINED = erasures.join(galleries, galleries.c.gallery_row == erasures.c.gallery_row)
_BRIEF = [column for column in erasures.c if column.name != "receipt"]


def find_erasure(connection: Connection, gallery_row: int, erasure_id: UUID) -> Erasure:
    """One erasure, with its receipt.

    Raises:
        NotFound: the gallery has none of this id.
    """
    row = connection.execute(
        select(*erasures.c, galleries.c.name)
        .select_from(_JOINED)
        .where(
            erasures.c.gallery_row == gallery_row,
            erasures.c.erasure_id == erasure_id,
            erasures.c.state != ErasureState.LISTING.value,
        )
    ).first()
    if row is None:
        raise NotFound(
            f"erasure {erasure_id} is not in this gallery",
            field="erasure_id",
            reason="ERASURE_NOT_FOUND",
        )
    return _erasure(row)


def list_erasures(
    connection: Connection, gallery_row: int, *, before: int | None, limit: int
) -> list[Erasure]:
    """Erasures from the newest, beginning below a row; without receipts."""
    statement = (
        _erasures()
        .where(erasures.c.gallery_row == gallery_row)
        .order_by(erasures.c.erasure_row.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(erasures.c.erasure_row < before)
    return [_erasure(row) for row in connection.execute(statement)]


def running_erasures(connection: Connection) -> list[Erasure]:
    """Erasures that were confirmed and are not done, oldest first; without receipts."""
    running = erasures.c.state == ErasureState.RUNNING.value
    statement = _erasures().where(running).order_by(erasures.c.erasure_row)
    return [_erasure(row) for row in connection.execute(statement)]


def open_erasures(connection: Connection) -> tuple[dict[str, int], datetime | None]:
    """How many erasures are planned and running, and when the oldest running was confirmed."""
    states = (ErasureState.PLANNED, ErasureState.RUNNING)
    running = case((erasures.c.state == ErasureState.RUNNING.value, erasures.c.confirm_time))
    rows = connection.execute(
        select(erasures.c.state, func.count().label("erasures"), func.min(running).label("oldest"))
        .where(erasures.c.state.in_([state.value for state in states]))
        .group_by(erasures.c.state)
    ).all()
    oldest = [row.oldest for row in rows if row.oldest is not None]
    return {row.state: row.erasures for row in rows}, min(oldest, default=None)


def list_crops(
    connection: Connection, erasure: Erasure, *, after: int, limit: int
) -> list[ListedCrop]:
    """Crops of the list by place, beginning after one."""
    table = erasure_crops
    rows = connection.execute(
        select(*table.c, crops.c.crop_row)
        .select_from(table.outerjoin(crops, _stored(erasure.gallery_row)))
        .where(table.c.erasure_row == erasure.erasure_row, table.c.place > after)
        .order_by(table.c.place)
        .limit(limit)
    ).all()
    there = [row.crop_id for row in rows if row.crop_row is not None]
    stored = crops_by_id(connection, erasure.gallery_row, there, gallery_size=1 << 62)
    found = dict(zip(there, stored, strict=True))
    return [
        ListedCrop(
            row.place,
            row.crop_id,
            found.get(row.crop_id),
            row.score,
            CropOutcome(row.outcome),
            row.remove_time,
        )
        for row in rows
    ]


def instances(
    connection: Connection, gallery_row: int, crop_ids: Sequence[UUID]
) -> Mapping[UUID, UUID]:
    """The stored instances of these crops (at most 10,000), of those that are there."""
    rows = connection.execute(
        select(crops.c.crop_id, crops.c.blob_id).where(
            crops.c.gallery_row == gallery_row, crops.c.crop_id.in_(crop_ids)
        )
    )
    return {row.crop_id: row.blob_id for row in rows}


def stored_in(
    connection: Connection,
    gallery_row: int,
    *,
    chosen: RowFilter,
    until_row: int,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[tuple[datetime, UUID, UUID]]:
    """Capture time, id and stored instance of crops that pass a filter, by time, then id, beginning
    after one; none stored after ``until_row``.
    """
    statement = select(crops.c.capture_time, crops.c.crop_id, crops.c.blob_id).where(
        crops.c.gallery_row == gallery_row,
        crops.c.crop_row <= until_row,
        *crop_conditions(chosen),
    )
    if after is not None:
        time, crop_id = after
        same_time = and_(crops.c.capture_time == time, crops.c.crop_id > crop_id)
        statement = statement.where(
            crops.c.capture_time >= time, (crops.c.capture_time > time) | same_time
        )
    statement = statement.order_by(crops.c.capture_time, crops.c.crop_id).limit(limit)
    return [(row[0], row[1], row[2]) for row in connection.execute(statement)]


def outcome_ids(
    connection: Connection, erasure_row: int, outcome: CropOutcome, *, block: int = 10_000
) -> Iterator[list[tuple[UUID, UUID | None]]]:
    """Ids and stored instances of the crops with an outcome, by id, in blocks."""
    table = erasure_crops
    after = UUID(int=0)
    while True:
        rows = connection.execute(
            select(table.c.crop_id, table.c.blob_id)
            .where(
                table.c.erasure_row == erasure_row,
                table.c.outcome == outcome.value,
                table.c.crop_id > after,
            )
            .order_by(table.c.crop_id)
            .limit(block)
        ).all()
        if rows:
            yield [(row.crop_id, row.blob_id) for row in rows]
        if len(rows) < block:
            return
        after = rows[-1].crop_id


def _erasures() -> Select[Any]:
    return (
        select(*_BRIEF, galleries.c.name)
        .select_from(_JOINED)
        .where(erasures.c.state != ErasureState.LISTING.value)
    )


def _stored(gallery_row: int) -> Any:
    return and_(crops.c.blob_id == erasure_crops.c.blob_id, crops.c.gallery_row == gallery_row)


def _erasure(row: Any) -> Erasure:
    return Erasure(
        erasure_row=row.erasure_row,
        erasure_id=row.erasure_id,
        gallery_row=row.gallery_row,
        gallery=row.name,
        state=ErasureState(row.state),
        subject=row.subject,
        reason=row.reason,
        principal=row.principal,
        confirmer=row.confirmer,
        listed=row.listed,
        kept=row.kept,
        removed=row.removed,
        absent=row.absent,
        more=row.more,
        vectors=row.vectors,
        create_time=row.create_time,
        confirm_time=row.confirm_time,
        complete_time=row.complete_time,
        receipt=getattr(row, "receipt", ""),
    )
