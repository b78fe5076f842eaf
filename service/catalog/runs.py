"""Statements on adaptation runs and their leases.

A lease is a row keyed by its gallery. Whether it has expired is judged inside the transaction that
takes it, under the gallery's row lock (on SQLite: the write lock), so two starters never both win.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update

from resight.errors import FailedPrecondition
from service.catalog.models import (
    adaptation_leases,
    adaptation_run_crops,
    adaptation_runs,
    crops,
    galleries,
)
from service.catalog.run_reads import RunRecord, find_run
from service.domain.adaptation import Ending, Progress, RunState, lease_held

__all__ = [
    "end_run",
    "extend_lease",
    "lock_gallery",
    "note_crops",
    "note_figures",
    "note_model",
    "start_run",
]

_MICROSECOND = timedelta(microseconds=1)
_MAX_IN = 10_000


def lock_gallery(connection: Connection, gallery_row: int) -> None:
    """Hold every other writer of this gallery until the commit."""
    connection.execute(
        select(galleries.c.gallery_row)
        .where(galleries.c.gallery_row == gallery_row)
        .with_for_update()
    )


def start_run(
    connection: Connection,
    gallery_row: int,
    *,
    run_id: UUID,
    token_digest: bytes,
    holder: str,
    lease: timedelta,
    now: datetime,
) -> tuple[RunRecord, bool]:
    """Take the lease and store a run whose window begins after the last success.

    Returns:
        The run, and whether the lease was another's and had expired.

    Raises:
        FailedPrecondition: another run holds the lease (reason ``LEASE_HELD``).
    """
    lock_gallery(connection, gallery_row)
    held = connection.execute(
        select(adaptation_leases.c.expire_time, adaptation_runs.c.run_row, adaptation_runs.c.holder)
        .join(adaptation_runs, adaptation_runs.c.run_row == adaptation_leases.c.run_row)
        .where(adaptation_leases.c.gallery_row == gallery_row)
    ).first()
    if held is not None:
        if held.expire_time > now:
            raise lease_held(held.holder, held.expire_time, now)
        message = f"the lease expired and {holder} took it with run {run_id}"
        _close(connection, held.run_row, RunState.ABANDONED, "LEASE_EXPIRED", message, now)
    since = connection.execute(
        select(func.max(adaptation_runs.c.until_row)).where(
            adaptation_runs.c.gallery_row == gallery_row,
            adaptation_runs.c.state == RunState.SUCCEEDED.value,
        )
    ).scalar()
    newest = connection.execute(
        select(crops.c.crop_row)
        .where(crops.c.gallery_row == gallery_row)
        .order_by(crops.c.crop_row.desc())
        .limit(1)
    ).scalar()
    connection.execute(
        insert(adaptation_runs).values(
            gallery_row=gallery_row,
            run_id=run_id,
            token_digest=token_digest,
            state=RunState.RUNNING.value,
            holder=holder,
            lease_micros=lease // _MICROSECOND,
            since_row=since or 0,
            until_row=max(since or 0, newest or 0),
            start_time=now,
            update_time=now,
            stage="",
            fraction=0.0,
            progress_message="",
            reason="",
            message="",
            model_version="",
            new_crops=0,
            replay_crops=0,
        )
    )
    run_row = connection.execute(
        select(adaptation_runs.c.run_row).where(adaptation_runs.c.run_id == run_id)
    ).scalar_one()
    connection.execute(
        insert(adaptation_leases).values(
            gallery_row=gallery_row, run_row=run_row, expire_time=now + lease
        )
    )
    return _stored(connection, gallery_row, run_id), held is not None


def extend_lease(
    connection: Connection,
    gallery_row: int,
    record: RunRecord,
    *,
    lease: timedelta | None,
    progress: Progress | None,
    now: datetime,
) -> RunRecord:
    """Let the lease of a run that holds it expire later, and note its progress."""
    connection.execute(
        update(adaptation_leases)
        .where(adaptation_leases.c.run_row == record.run_row)
        .values(expire_time=now + (lease or record.lease))
    )
    changed: dict[str, Any] = {"update_time": now}
    if progress is not None:
        changed |= {
            "stage": progress.stage,
            "fraction": progress.fraction,
            "progress_message": progress.message,
        }
    _update(connection, record.run_row, changed)
    return _stored(connection, gallery_row, record.run.run_id)


def note_figures(connection: Connection, run_row: int, figures: str, *, now: datetime) -> None:
    """Replace what a run measured."""
    _update(connection, run_row, {"figures": figures, "update_time": now})


def note_crops(
    connection: Connection, run_row: int, crop_ids: Iterable[UUID], *, replay: bool, now: datetime
) -> int:
    """Add crops to those a run used, each once; returns how many were added."""
    wanted = list(dict.fromkeys(crop_ids))
    table = adaptation_run_crops
    known: set[UUID] = set()
    for start in range(0, len(wanted), _MAX_IN):
        chosen = table.c.crop_id.in_(wanted[start : start + _MAX_IN])
        statement = select(table.c.crop_id).where(table.c.run_row == run_row, chosen)
        known.update(connection.execute(statement).scalars())
    fresh = [crop_id for crop_id in wanted if crop_id not in known]
    if fresh:
        rows = [{"run_row": run_row, "crop_id": crop_id, "replay": replay} for crop_id in fresh]
        connection.execute(insert(table), rows)
        counter = adaptation_runs.c.replay_crops if replay else adaptation_runs.c.new_crops
        _update(connection, run_row, {counter.name: counter + len(fresh), "update_time": now})
    return len(fresh)


def note_model(connection: Connection, run_row: int, version: str, *, now: datetime) -> None:
    """Note which candidate a run registered."""
    _update(connection, run_row, {"model_version": version, "update_time": now})


def end_run(
    connection: Connection, gallery_row: int, record: RunRecord, ending: Ending, *, now: datetime
) -> RunRecord:
    """Store how a run ended and release its lease.

    Raises:
        FailedPrecondition: a success without a candidate (``MODEL_NOT_REGISTERED``).
    """
    if ending.state is RunState.SUCCEEDED and not record.run.model_version:
        raise FailedPrecondition(
            f"run {record.run.run_id} registered no candidate, so it has not succeeded; call "
            "ModelService.RegisterModel with its run_id first, or finish it in another way",
            field="state",
            reason="MODEL_NOT_REGISTERED",
        )
    _close(connection, record.run_row, ending.state, ending.reason, ending.message, now)
    return _stored(connection, gallery_row, record.run.run_id)


def _close(
    connection: Connection, run_row: int, state: RunState, reason: str, message: str, now: datetime
) -> None:
    changed = {"state": state.value, "reason": reason, "message": message, "end_time": now}
    _update(connection, run_row, {**changed, "update_time": now})
    connection.execute(delete(adaptation_leases).where(adaptation_leases.c.run_row == run_row))


def _update(connection: Connection, run_row: int, values: dict[str, Any]) -> None:
    statement = update(adaptation_runs).where(adaptation_runs.c.run_row == run_row)
    connection.execute(statement.values(**values))


def _stored(connection: Connection, gallery_row: int, run_id: UUID) -> RunRecord:
    record = find_run(connection, gallery_row, run_id)
    assert record is not None, "written in this transaction"  # noqa: S101
    return record
