"""Statements that read adaptation runs, their leases and the crops they used."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, func, select

from resight.errors import FailedPrecondition, NotFound
from service.catalog.models import adaptation_leases, adaptation_run_crops, adaptation_runs
from service.domain.adaptation import AdaptationRun, Progress, RunState, lease_lost

__all__ = [
    "RunRecord",
    "find_run",
    "last_attempt",
    "last_ended",
    "last_success",
    "leases",
    "list_run_crops",
    "list_runs",
    "require_holder",
    "require_running",
    "require_token",
    "unknown_run",
]

_MICROSECOND = timedelta(microseconds=1)
_BRIEF = [column for column in adaptation_runs.c if column.name != "figures"]
_JOINED = adaptation_runs.outerjoin(
    adaptation_leases, adaptation_leases.c.run_row == adaptation_runs.c.run_row
)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A stored run with its key and its window ``since_row < crop_row <= until_row``."""

    run_row: int
    since_row: int
    until_row: int
    lease: timedelta
    token_digest: bytes
    run: AdaptationRun


def find_run(
    connection: Connection, gallery_row: int, run_id: UUID, *, with_figures: bool = False
) -> RunRecord | None:
    """One run."""
    columns = adaptation_runs.c if with_figures else _BRIEF
    row = connection.execute(
        select(*columns, adaptation_leases.c.expire_time)
        .select_from(_JOINED)
        .where(adaptation_runs.c.gallery_row == gallery_row, adaptation_runs.c.run_id == run_id)
    ).first()
    return None if row is None else _record(row)


def list_runs(
    connection: Connection, gallery_row: int, *, before: int | None, limit: int
) -> list[RunRecord]:
    """Runs from the newest, beginning below a row; without figures."""
    statement = (
        select(*_BRIEF, adaptation_leases.c.expire_time)
        .select_from(_JOINED)
        .where(adaptation_runs.c.gallery_row == gallery_row)
        .order_by(adaptation_runs.c.run_row.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(adaptation_runs.c.run_row < before)
    return [_record(row) for row in connection.execute(statement)]


def require_holder(
    connection: Connection, gallery_row: int, run_id: UUID, token_digest: bytes
) -> RunRecord:
    """The run, when the caller is its holder and it has not ended.

    Raises:
        NotFound, FailedPrecondition: as ``require_token`` and ``require_running``.
    """
    return require_running(require_token(connection, gallery_row, run_id, token_digest))


def require_token(
    connection: Connection, gallery_row: int, run_id: UUID, token_digest: bytes
) -> RunRecord:
    """The run, when the caller has its token.

    Raises:
        NotFound: no such run in this gallery.
        FailedPrecondition: another token (reason ``LEASE_TOKEN_WRONG``).
    """
    record = find_run(connection, gallery_row, run_id)
    if record is None:
        raise unknown_run(run_id)
    if not hmac.compare_digest(record.token_digest, token_digest):
        raise FailedPrecondition(
            f"lease_token is not the one run {run_id} was started with; send the token that "
            "StartAdaptationRun returned",
            field="lease_token",
            reason="LEASE_TOKEN_WRONG",
        )
    return record


def require_running(record: RunRecord) -> RunRecord:
    """The run, when it has not ended.

    Raises:
        FailedPrecondition: its lease was taken (``LEASE_LOST``), or it has ended (``RUN_ENDED``).
    """
    run = record.run
    if run.state is RunState.ABANDONED:
        raise lease_lost(run)
    if run.state is not RunState.RUNNING:
        raise FailedPrecondition(
            f"run {run.run_id} has ended ({run.state.value}); start another",
            field="run_id",
            reason="RUN_ENDED",
        )
    return record


def unknown_run(run_id: UUID) -> NotFound:
    """What is raised for a run that the gallery does not have."""
    return NotFound(f"run {run_id} is not in this gallery", field="run_id", reason="RUN_NOT_FOUND")


def list_run_crops(
    connection: Connection, run_row: int, *, after: UUID | None, limit: int
) -> list[tuple[UUID, bool]]:
    """Crops a run used and whether for replay, by id, beginning after one."""
    table = adaptation_run_crops
    statement = select(table.c.crop_id, table.c.replay).where(table.c.run_row == run_row)
    if after is not None:
        statement = statement.where(table.c.crop_id > after)
    statement = statement.order_by(table.c.crop_id).limit(limit)
    return [(row.crop_id, row.replay) for row in connection.execute(statement)]


def leases(connection: Connection) -> dict[int, datetime]:
    """When the lease of each gallery that has one expires, by gallery row."""
    rows = connection.execute(
        select(adaptation_leases.c.gallery_row, adaptation_leases.c.expire_time)
    )
    return {row.gallery_row: row.expire_time for row in rows}


def last_success(connection: Connection) -> dict[int, datetime]:
    """When the last successful run of each gallery ended, by gallery row."""
    rows = connection.execute(
        select(adaptation_runs.c.gallery_row, func.max(adaptation_runs.c.end_time).label("ended"))
        .where(adaptation_runs.c.state == RunState.SUCCEEDED.value)
        .group_by(adaptation_runs.c.gallery_row)
    )
    return {row.gallery_row: row.ended for row in rows}


def last_attempt(connection: Connection) -> dict[int, datetime]:
    """When the last run of each gallery was started, by gallery row."""
    rows = connection.execute(
        select(
            adaptation_runs.c.gallery_row, func.max(adaptation_runs.c.start_time).label("started")
        ).group_by(adaptation_runs.c.gallery_row)
    )
    return {row.gallery_row: row.started for row in rows}


def last_ended(
    connection: Connection, gallery_row: int, *, with_figures: bool = False
) -> RunRecord | None:
    """The run that was started last of those that have ended, or that have ended and reported."""
    table = adaptation_runs.c
    statement = (
        select(*table, adaptation_leases.c.expire_time)
        .select_from(_JOINED)
        .where(table.gallery_row == gallery_row, table.state != RunState.RUNNING.value)
        .order_by(table.run_row.desc())
        .limit(1)
    )
    if with_figures:
        statement = statement.where(table.figures.is_not(None))
    row = connection.execute(statement).first()
    return None if row is None else _record(row)


def _record(row: Any) -> RunRecord:
    figures = getattr(row, "figures", None)
    run = AdaptationRun(
        run_id=row.run_id,
        state=RunState(row.state),
        holder=row.holder,
        start_time=row.start_time,
        update_time=row.update_time,
        end_time=row.end_time,
        lease_expire_time=row.expire_time,
        progress=Progress(row.stage, row.fraction, row.progress_message),
        reason=row.reason,
        message=row.message,
        model_version=row.model_version,
        new_crops=row.new_crops,
        replay_crops=row.replay_crops,
        figures=None if figures is None else json.loads(figures),
    )
    return RunRecord(
        run_row=row.run_row,
        since_row=row.since_row,
        until_row=row.until_row,
        lease=row.lease_micros * _MICROSECOND,
        token_digest=bytes(row.token_digest),
        run=run,
    )
