"""Statements on the models of a gallery and the bundles that were registered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from resight.errors import AlreadyExists
from service.catalog.models import adaptation_runs, galleries, model_bundles, models
from service.domain.model import GateOutcome, GateVerdict, Model, ModelState

__all__ = [
    "Registration",
    "find_model",
    "forget_archive",
    "list_models",
    "manifest_of",
    "register",
    "shelved",
    "store_bundle",
]

_COLUMNS = (
    models.c.model_row,
    models.c.version,
    models.c.state,
    models.c.dimension,
    models.c.create_time,
    model_bundles.c.parent_version,
    model_bundles.c.method,
    model_bundles.c.sha256,
    model_bundles.c.size_bytes,
    model_bundles.c.gate_outcome,
    model_bundles.c.gate_score,
    model_bundles.c.gate_reasons,
    adaptation_runs.c.run_id,
)


@dataclass(frozen=True, slots=True)
class Registration:
    """A verified bundle about to become a candidate; ``manifest`` is its serialised message."""

    version: str
    dimension: int
    sha256: bytes
    size_bytes: int
    manifest: bytes
    parent_version: str
    method: str
    gate: GateVerdict


def register(
    connection: Connection,
    gallery_row: int,
    item: Registration,
    *,
    run_row: int | None,
    now: datetime,
) -> bytes | None:
    """Store a candidate under the gallery's lock.

    Returns:
        The digest of the archive whose place it took, if any.

    The same encoder may be registered again while it is a candidate: a night that was cut off
    after registering may be followed by one that arrives at the same graph.

    Raises:
        AlreadyExists: the gallery knows this version in another state.
    """
    known = connection.execute(
        select(models.c.model_row, models.c.state).where(
            models.c.gallery_row == gallery_row, models.c.version == item.version
        )
    ).first()
    if known is not None and known.state != ModelState.CANDIDATE.value:
        raise AlreadyExists(
            f"model {item.version} is {known.state} in this gallery already: the encoder is the "
            "same, nothing was learnt",
            field="model_version",
            reason="MODEL_KNOWN",
        )
    replaced: bytes | None = None
    if known is None:
        model_row = connection.execute(
            insert(models)
            .values(
                gallery_row=gallery_row,
                version=item.version,
                dimension=item.dimension,
                state=ModelState.CANDIDATE.value,
                create_time=now,
            )
            .returning(models.c.model_row)
        ).scalar_one()
    else:
        model_row = known.model_row
        mine = model_bundles.c.model_row == model_row
        replaced = connection.execute(select(model_bundles.c.sha256).where(mine)).scalar()
        connection.execute(delete(model_bundles).where(mine))
    store_bundle(connection, model_row, item, run_row=run_row)
    return None if replaced is None or bytes(replaced) == item.sha256 else bytes(replaced)


def store_bundle(
    connection: Connection, model_row: int, item: Registration, *, run_row: int | None
) -> None:
    """Store what was registered beside a model that has nothing registered."""
    connection.execute(
        insert(model_bundles).values(
            model_row=model_row,
            run_row=run_row,
            sha256=item.sha256,
            size_bytes=item.size_bytes,
            manifest=item.manifest,
            parent_version=item.parent_version,
            method=item.method,
            gate_outcome=item.gate.outcome.value,
            gate_score=item.gate.score,
            gate_reasons=list(item.gate.reasons),
            gate_report=dict(item.gate.report or {}),
        )
    )


def find_model(connection: Connection, gallery_row: int, version: str) -> Model | None:
    """One model, with the gate's report."""
    statement = _joined(model_bundles.c.gate_report)
    statement = statement.where(models.c.gallery_row == gallery_row, models.c.version == version)
    row = connection.execute(statement).first()
    return None if row is None else _model(row, report=row.gate_report)


def manifest_of(connection: Connection, gallery_row: int, version: str) -> bytes | None:
    """The serialised manifest of a registered bundle."""
    manifest = connection.execute(
        select(model_bundles.c.manifest)
        .join(models, models.c.model_row == model_bundles.c.model_row)
        .where(models.c.gallery_row == gallery_row, models.c.version == version)
    ).scalar()
    return None if manifest is None else bytes(manifest)


def list_models(
    connection: Connection, gallery_row: int, *, before: int | None, limit: int
) -> list[tuple[int, Model]]:
    """Models with their rows from the newest, beginning below a row; without the gate's report."""
    statement = _joined().where(models.c.gallery_row == gallery_row)
    if before is not None:
        statement = statement.where(models.c.model_row < before)
    rows = connection.execute(statement.order_by(models.c.model_row.desc()).limit(limit))
    return [(row.model_row, _model(row, report=None)) for row in rows]


def shelved(connection: Connection) -> set[tuple[str, bytes]]:
    """Gallery and digest of every registered archive."""
    rows = connection.execute(
        select(galleries.c.name, model_bundles.c.sha256)
        .join(models, models.c.model_row == model_bundles.c.model_row)
        .join(galleries, galleries.c.gallery_row == models.c.gallery_row)
        .where(model_bundles.c.size_bytes > 0)
    )
    return {(row.name, bytes(row.sha256)) for row in rows}


def forget_archive(connection: Connection, model_row: int) -> None:
    """Note that the archive of a model is stored no more; what was registered stays."""
    mine = model_bundles.c.model_row == model_row
    connection.execute(update(model_bundles).where(mine).values(size_bytes=0))


def _joined(*more: Any) -> Any:
    joined = models.outerjoin(model_bundles, model_bundles.c.model_row == models.c.model_row)
    joined = joined.outerjoin(adaptation_runs, adaptation_runs.c.run_row == model_bundles.c.run_row)
    return select(*_COLUMNS, *more).select_from(joined)


def _model(row: Any, *, report: Any) -> Model:
    model = Model(row.version, ModelState(row.state), row.dimension, row.create_time)
    if row.sha256 is None:
        return model
    return Model(
        model_version=model.model_version,
        state=model.state,
        dimension=model.dimension,
        create_time=model.create_time,
        parent_version=row.parent_version,
        method=row.method,
        run_id=row.run_id,
        gate=GateVerdict(
            GateOutcome(row.gate_outcome),
            row.gate_score,
            tuple(row.gate_reasons),
            report,
        ),
        bundle_sha256=bytes(row.sha256) if row.size_bytes else b"",
        bundle_size_bytes=row.size_bytes,
    )
