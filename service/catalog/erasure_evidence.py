"""Statements that read what a receipt tells besides the crops: what had used them, which models."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, case, func, select

from service.catalog.models import (
    adaptation_run_crops,
    adaptation_runs,
    erasure_crops,
    model_bundles,
    models,
)
from service.domain.adaptation import RunState
from service.domain.erasure import CropOutcome, Erasure

__all__ = ["ModelLine", "UsedBy", "models_of", "under_way", "used_by"]


@dataclass(frozen=True, slots=True)
class UsedBy:
    """A training run that had used crops of an erasure."""

    run_id: UUID
    state: str
    end_time: datetime | None
    model_version: str
    new_crops: int
    replay_crops: int


@dataclass(frozen=True, slots=True)
class ModelLine:
    """A model of a gallery, with its parent where it has a bundle."""

    model_row: int
    version: str
    state: str
    parent_version: str


def used_by(connection: Connection, erasure: Erasure) -> list[UsedBy]:
    """Training runs of the gallery that had used crops of the list that went or had gone."""
    used, listed, runs = adaptation_run_crops, erasure_crops, adaptation_runs
    gone = [CropOutcome.REMOVED.value, CropOutcome.ABSENT.value]
    rows = connection.execute(
        select(
            used.c.run_row,
            func.count().label("crops"),
            func.sum(case((used.c.replay, 1), else_=0)).label("replayed"),
        )
        .select_from(listed.join(used, used.c.crop_id == listed.c.crop_id))
        .where(listed.c.erasure_row == erasure.erasure_row, listed.c.outcome.in_(gone))
        .group_by(used.c.run_row)
    ).all()
    counts = {row.run_row: (int(row.crops), int(row.replayed)) for row in rows}
    found = connection.execute(
        select(runs)
        .where(runs.c.run_row.in_(sorted(counts)), runs.c.gallery_row == erasure.gallery_row)
        .order_by(runs.c.run_row)
    ).all()
    return [
        UsedBy(
            row.run_id,
            row.state,
            row.end_time,
            row.model_version,
            counts[row.run_row][0] - counts[row.run_row][1],
            counts[row.run_row][1],
        )
        for row in found
    ]


def under_way(connection: Connection, gallery_row: int) -> list[UUID]:
    """Runs that have not ended: which crops they use is not known yet."""
    runs = adaptation_runs
    statement = select(runs.c.run_id).where(
        runs.c.gallery_row == gallery_row, runs.c.state == RunState.RUNNING.value
    )
    return list(connection.execute(statement.order_by(runs.c.run_row)).scalars())


def models_of(connection: Connection, gallery_row: int) -> list[ModelLine]:
    """Every model of a gallery, oldest first."""
    rows = connection.execute(
        select(models.c.model_row, models.c.version, models.c.state, model_bundles.c.parent_version)
        .select_from(
            models.outerjoin(model_bundles, model_bundles.c.model_row == models.c.model_row)
        )
        .where(models.c.gallery_row == gallery_row)
        .order_by(models.c.model_row)
    )
    return [ModelLine(row[0], row[1], row[2], row[3] or "") for row in rows]
