"""Statements that read which models a gallery feeds, how far one is filled, and its history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, func, select

from service.catalog.gallery_reads import RECORD_COLUMNS
from service.catalog.models import (
    crops,
    embeddings,
    galleries,
    model_bundles,
    model_events,
    model_failures,
    model_fillings,
    model_removals,
    models,
)
from service.catalog.records import GalleryRecord
from service.domain.filling import (
    FailedCrop,
    FailureReason,
    Filling,
    FillingSource,
    FillingState,
)
from service.domain.model import ModelState

__all__ = [
    "FedModels",
    "LastEvent",
    "archive_digest",
    "every_model",
    "fed_models",
    "filled_until",
    "filling",
    "fillings",
    "last_event",
    "missing_vectors",
    "model_record",
    "removals",
    "row_span",
    "vector_count",
]

FAILURES_TOLD = 100
_FED = {ModelState.LIVE: 0, ModelState.SHADOW: 1, ModelState.PREVIOUS: 1}


@dataclass(frozen=True, slots=True)
class FedModels:
    """The models of a gallery that every new crop gets a vector of, at one generation; ``dual``
    when the crops from before the live one have vectors of the previous alone.
    """

    live: GalleryRecord
    shadow: GalleryRecord | None
    previous: GalleryRecord | None
    dual: bool = False

    @property
    def generation(self) -> int:
        """Of the gallery's models."""
        return self.live.generation

    @property
    def all(self) -> list[GalleryRecord]:
        """The live one first."""
        return [one for one in (self.live, self.shadow, self.previous) if one is not None]


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The newest change of the gallery's live model."""

    kind: str
    actor: str
    reason: str
    create_time: datetime


def fed_models(connection: Connection, gallery_row: int) -> FedModels:
    """The gallery's live model and what is fed with it."""
    rows = connection.execute(
        select(
            *RECORD_COLUMNS,
            models.c.state,
            model_fillings.c.source,
            model_fillings.c.start_time,
        )
        .join(models, models.c.gallery_row == galleries.c.gallery_row)
        .outerjoin(model_fillings, model_fillings.c.model_row == models.c.model_row)
        .where(
            galleries.c.gallery_row == gallery_row,
            models.c.state.in_([state.value for state in _FED]),
        )
    ).all()
    found = {row.state: GalleryRecord(*row[:6]) for row in rows}
    by_state = {row.state: row for row in rows}
    live, before = by_state["live"], by_state.get("previous")
    dual = (
        live.source == FillingSource.NONE.value
        and before is not None
        # After a rollback the previous model is the newer one: no crop has its vector alone.
        and (before.start_time is None or before.start_time < live.start_time)
    )
    return FedModels(found["live"], found.get("shadow"), found.get("previous"), dual)


def model_record(
    connection: Connection, gallery_row: int, version: str
) -> tuple[GalleryRecord, ModelState] | None:
    """One model of a gallery and where it stands."""
    row = connection.execute(
        select(*RECORD_COLUMNS, models.c.state)
        .join(models, models.c.gallery_row == galleries.c.gallery_row)
        .where(galleries.c.gallery_row == gallery_row, models.c.version == version)
    ).first()
    return None if row is None else (GalleryRecord(*row[:6]), ModelState(row.state))


def every_model(connection: Connection) -> list[tuple[GalleryRecord, ModelState]]:
    """Every model of every gallery and where it stands."""
    rows = connection.execute(
        select(*RECORD_COLUMNS, models.c.state)
        .join(models, models.c.gallery_row == galleries.c.gallery_row)
        .order_by(models.c.model_row)
    )
    return [(GalleryRecord(*row[:6]), ModelState(row.state)) for row in rows]


def archive_digest(connection: Connection, model_row: int) -> bytes | None:
    """SHA-256 of the stored archive of a model; None when there is none."""
    found = connection.execute(
        select(model_bundles.c.sha256).where(
            model_bundles.c.model_row == model_row, model_bundles.c.size_bytes > 0
        )
    ).scalar()
    return None if found is None else bytes(found)


def missing_vectors(connection: Connection, gallery_row: int, model_row: int) -> int:
    """Crops of a gallery that have no vector of a model."""
    mine = and_(embeddings.c.crop_row == crops.c.crop_row, embeddings.c.model_row == model_row)
    statement = (
        select(func.count())
        .select_from(crops.outerjoin(embeddings, mine))
        .where(crops.c.gallery_row == gallery_row, embeddings.c.crop_row.is_(None))
    )
    return int(connection.execute(statement).scalar_one())


def vector_count(connection: Connection, gallery_row: int, model_row: int) -> int:
    """Crops of a gallery that have a vector of a model."""
    statement = select(func.count()).select_from(crops).where(crops.c.gallery_row == gallery_row)
    every = int(connection.execute(statement).scalar_one())
    return every - missing_vectors(connection, gallery_row, model_row)


def row_span(connection: Connection, gallery_row: int) -> tuple[int, int] | None:
    """The first and the last row of a gallery's crops; None when it has none."""
    lowest, highest = connection.execute(
        select(func.min(crops.c.crop_row), func.max(crops.c.crop_row)).where(
            crops.c.gallery_row == gallery_row
        )
    ).one()
    return None if lowest is None else (int(lowest), int(highest))


def fillings(connection: Connection) -> list[tuple[int, int, FillingSource, FillingState]]:
    """Gallery and model of every shadow, what its vectors are made of and whether that goes on."""
    rows = connection.execute(
        select(
            models.c.gallery_row,
            models.c.model_row,
            model_fillings.c.source,
            model_fillings.c.state,
        )
        .join(models, models.c.model_row == model_fillings.c.model_row)
        .where(models.c.state == ModelState.SHADOW.value)
        .order_by(models.c.model_row)
    )
    return [(row[0], row[1], FillingSource(row[2]), FillingState(row[3])) for row in rows]


def filled_until(connection: Connection, model_row: int) -> int:
    """The last crop that there was when a model was staged."""
    statement = select(model_fillings.c.until_row).where(model_fillings.c.model_row == model_row)
    return int(connection.execute(statement).scalar_one())


def filling(connection: Connection, gallery_row: int, version: str) -> Filling | None:
    """How far a model is filled; None for one that was never staged."""
    row = connection.execute(
        select(model_fillings)
        .join(models, models.c.model_row == model_fillings.c.model_row)
        .where(models.c.gallery_row == gallery_row, models.c.version == version)
    ).first()
    if row is None:
        return None
    failed = model_failures.c.model_row == row.model_row
    count = connection.execute(select(func.count()).where(failed)).scalar_one()
    told = connection.execute(
        select(crops.c.crop_id, model_failures.c.reason)
        .join(crops, crops.c.crop_row == model_failures.c.crop_row)
        .where(failed)
        .order_by(model_failures.c.crop_row)
        .limit(FAILURES_TOLD)
    )
    return Filling(
        source=FillingSource(row.source),
        state=FillingState(row.state),
        total=row.total,
        done=row.done,
        failed=count,
        failures=[FailedCrop(crop_id, FailureReason(reason)) for crop_id, reason in told],
        start_time=row.start_time,
        update_time=row.update_time,
        complete_time=row.complete_time,
    )


def last_event(connection: Connection, gallery_row: int) -> LastEvent | None:
    """The newest promotion or rollback; None when the live model came by neither."""
    row = connection.execute(
        select(
            model_events.c.kind,
            model_events.c.actor,
            model_events.c.reason,
            model_events.c.create_time,
        )
        .where(
            model_events.c.gallery_row == gallery_row,
            model_events.c.kind.in_(["promote", "rollback"]),
        )
        .order_by(model_events.c.event_row.desc())
        .limit(1)
    ).first()
    return None if row is None else LastEvent(*row)


def removals(connection: Connection) -> list[tuple[GalleryRecord, bytes | None]]:
    """Retired models of which something is left, and the digest of the archive if one is stored."""
    rows = connection.execute(
        select(
            *RECORD_COLUMNS,
            model_bundles.c.sha256,
            model_bundles.c.size_bytes,
        )
        .join(models, models.c.gallery_row == galleries.c.gallery_row)
        .join(model_removals, model_removals.c.model_row == models.c.model_row)
        .outerjoin(model_bundles, model_bundles.c.model_row == models.c.model_row)
    )
    return [
        (GalleryRecord(*row[:6]), bytes(row.sha256) if row.size_bytes else None) for row in rows
    ]
