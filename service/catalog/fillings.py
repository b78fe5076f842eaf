"""Statements that fill a shadow with vectors, block by block, by one process at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, or_, select, update

from resight.errors import FailedPrecondition
from service.catalog.change_log import log_crops, take_positions
from service.catalog.model_vectors import StoredCrop, of_model
from service.catalog.models import (
    CHANGE_VECTOR_ADDED,
    crops,
    embeddings,
    model_failures,
    model_fillings,
    models,
)
from service.domain.filling import FailureReason, FillingState

__all__ = [
    "Backlog",
    "Filled",
    "Lease",
    "Made",
    "backlog",
    "pause",
    "resume",
    "store",
    "take_lease",
]

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lease:
    """Who fills, and until when nobody else may."""

    holder: UUID
    now: datetime
    length: timedelta


@dataclass(frozen=True, slots=True)
class Backlog:
    """The next crops without a vector, and up to which row there are none besides."""

    crops: Sequence[StoredCrop]
    until_row: int
    ends: bool


@dataclass(frozen=True, slots=True)
class Filled:
    """Crops that were given a vector, and the position of the first one's change."""

    crop_ids: Sequence[UUID]
    first: int


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a crop: its vector (D,), or why there is none."""

    crop: StoredCrop
    vector: Vector | None
    reason: FailureReason | None = None


def take_lease(connection: Connection, model_row: int, lease: Lease) -> bool:
    """Become or stay the one that fills; False when another is, or nothing is to be done."""
    held = connection.execute(
        update(model_fillings)
        .where(
            model_fillings.c.model_row == model_row,
            model_fillings.c.state == FillingState.RUNNING.value,
            or_(
                model_fillings.c.holder.is_(None),
                model_fillings.c.holder == lease.holder,
                model_fillings.c.expire_time <= lease.now,
            ),
        )
        .values(holder=lease.holder, expire_time=lease.now + lease.length)
    )
    return held.rowcount == 1


def backlog(connection: Connection, gallery_row: int, model_row: int, *, limit: int) -> Backlog:
    """The next block of crops that lack a vector of the model and have not failed."""
    filling = connection.execute(
        select(model_fillings.c.last_row, model_fillings.c.until_row).where(
            model_fillings.c.model_row == model_row
        )
    ).first()
    if filling is None:
        return Backlog((), 0, ends=True)
    rows = connection.execute(
        select(crops.c.crop_row, crops.c.crop_id, crops.c.blob_id)
        .select_from(crops.outerjoin(embeddings, of_model(model_row)))
        .where(
            crops.c.gallery_row == gallery_row,
            crops.c.crop_row > filling.last_row,
            crops.c.crop_row <= filling.until_row,
            embeddings.c.crop_row.is_(None),
        )
        .order_by(crops.c.crop_row)
        .limit(limit)
    ).all()
    ends = len(rows) < limit
    until = filling.until_row if ends else rows[-1].crop_row
    return Backlog([StoredCrop(*row) for row in rows], until, ends)


def store(
    connection: Connection,
    gallery_row: int,
    model_row: int,
    found: Backlog,
    made: Sequence[Made],
    *,
    lease: Lease,
) -> Filled:
    """Store the vectors of a block under the gallery's lock.

    A crop that has been deleted, or has got its vector, is passed over.

    Raises:
        FailedPrecondition: the filling was paused, taken over or retired (``FILLING_LOST``).
    """
    take_positions(connection, gallery_row, 0)
    row = connection.execute(
        select(model_fillings.c.holder, model_fillings.c.state, model_fillings.c.done).where(
            model_fillings.c.model_row == model_row
        )
    ).first()
    if row is None or row.holder != lease.holder or row.state != FillingState.RUNNING.value:
        raise FailedPrecondition(
            "the filling was paused, retired or taken over by another process",
            reason="FILLING_LOST",
        )
    lacking = set(
        connection.execute(
            select(crops.c.crop_row)
            .select_from(crops.outerjoin(embeddings, of_model(model_row)))
            .where(
                crops.c.crop_row.in_([item.crop.crop_row for item in made]),
                embeddings.c.crop_row.is_(None),
            )
        ).scalars()
    )
    there = [item for item in made if item.crop.crop_row in lacking]
    stored = _insert(connection, gallery_row, model_row, there, now=lease.now)
    failed = [
        {"model_row": model_row, "crop_row": item.crop.crop_row, "reason": item.reason.value}
        for item in there
        if item.vector is None and item.reason is not None
    ]
    if failed:
        connection.execute(insert(model_failures), failed)
    values: dict[str, Any] = {
        "last_row": found.until_row,
        "done": row.done + len(stored.crop_ids),
        "update_time": lease.now,
        "expire_time": lease.now + lease.length,
    }
    if found.ends:
        values |= {
            "state": FillingState.COMPLETE.value,
            "complete_time": lease.now,
            "holder": None,
            "expire_time": None,
        }
    mine = model_fillings.c.model_row == model_row
    connection.execute(update(model_fillings).where(mine).values(values))
    return stored


def pause(connection: Connection, gallery_row: int, version: str, *, now: datetime) -> None:
    """Let a filling rest.

    Raises:
        FailedPrecondition: there is none, or it is complete (``NO_FILLING``).
    """
    model_row = _filled(connection, gallery_row, version, {FillingState.RUNNING})
    connection.execute(
        update(model_fillings)
        .where(model_fillings.c.model_row == model_row)
        .values(state=FillingState.PAUSED.value, holder=None, expire_time=None, update_time=now)
    )


def resume(connection: Connection, gallery_row: int, version: str, *, now: datetime) -> None:
    """Let a filling go on, and try again what failed.

    Raises:
        FailedPrecondition: there is none (``NO_FILLING``).
    """
    model_row = _filled(connection, gallery_row, version, set(FillingState))
    failed = model_failures.c.model_row == model_row
    first = connection.execute(
        select(model_failures.c.crop_row).where(failed).order_by(model_failures.c.crop_row).limit(1)
    ).scalar()
    values: dict[str, Any] = {"state": FillingState.RUNNING.value, "update_time": now}
    mine = model_fillings.c.model_row == model_row
    if first is not None:
        last = connection.execute(select(model_fillings.c.last_row).where(mine)).scalar_one()
        values |= {"last_row": min(last, first - 1), "complete_time": None}
        connection.execute(delete(model_failures).where(failed))
    else:
        values |= {"complete_time": None}
    connection.execute(update(model_fillings).where(mine).values(values))


def _insert(
    connection: Connection,
    gallery_row: int,
    model_row: int,
    made: Sequence[Made],
    *,
    now: datetime,
) -> Filled:
    fresh = [
        (item.crop, item.vector.astype("<f4", copy=False).tobytes())
        for item in made
        if item.vector is not None
    ]
    if not fresh:
        return Filled((), 0)
    connection.execute(
        insert(embeddings),
        [
            {"crop_row": crop.crop_row, "model_row": model_row, "vector": vector}
            for crop, vector in fresh
        ],
    )
    newest = take_positions(connection, gallery_row, len(fresh))
    ids = [crop.crop_id for crop, _ in fresh]
    first = newest - len(fresh) + 1
    log_crops(connection, gallery_row, CHANGE_VECTOR_ADDED, ids, first, now)
    return Filled(ids, first)


def _filled(
    connection: Connection, gallery_row: int, version: str, states: set[FillingState]
) -> int:
    take_positions(connection, gallery_row, 0)
    row = connection.execute(
        select(model_fillings.c.model_row, model_fillings.c.state)
        .join(models, models.c.model_row == model_fillings.c.model_row)
        .where(
            models.c.gallery_row == gallery_row,
            models.c.version == version,
            models.c.state == "shadow",
        )
    ).first()
    if row is None or FillingState(row.state) not in states:
        raise FailedPrecondition(
            f"nothing is being filled in for model {version[:80]!a}"
            + ("" if row is None else f" (its filling is {row.state})"),
            field="model_version",
            reason="NO_FILLING",
        )
    return int(row.model_row)
