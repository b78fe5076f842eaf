"""Where models stood at a time, compared with what was stored at that time."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from resight.errors import ResightError
from service.audit.past_models import ModelEvent, states_before
from service.catalog import lifecycle
from service.catalog.model_states import Actor, Note
from service.catalog.models import galleries, model_bundles, model_events, models
from service.catalog.store import Catalog
from service.domain.filling import FillingSource
from service.domain.model import ModelState

BEGINNING = datetime(2026, 3, 1, tzinfo=UTC)


def register(connection: Connection, gallery: int, version: str, state: str, now: datetime) -> None:
    values = {"gallery_row": gallery, "version": version, "dimension": 4, "state": state}
    made = insert(models).values(create_time=now, **values)
    row = connection.execute(made.returning(models.c.model_row)).scalar_one()
    if state == "live":
        return
    bundle: dict[str, Any] = {"sha256": bytes(32), "size_bytes": 1, "manifest": b""}
    gate = {"gate_outcome": "passed", "gate_score": 1.0, "gate_reasons": [], "gate_report": {}}
    told = {"parent_version": "", "method": "import", **bundle, **gate}
    connection.execute(insert(model_bundles).values(model_row=row, **told))


def one_change(connection: Connection, pick: random.Random, now: datetime) -> None:
    """Something that callers may do to the one gallery, or that is refused."""
    every = select(models.c.version, models.c.state).order_by(models.c.model_row)
    rows = connection.execute(every).all()
    version = pick.choice([row.version for row in rows if row.state != "retired"])
    note = Note(Actor.CALLER, "", now)
    none = FillingSource.NONE
    doings: list[Callable[[], object]] = [
        lambda: register(connection, 1, f"m{len(rows)}", "candidate", now),
        lambda: lifecycle.stage(
            connection, 1, version, source=none, retire_previous=pick.random() < 0.5, note=note
        ),
        lambda: lifecycle.promote(
            connection, 1, version, allow_missing=True, force=True, note=note
        ),
        lambda: lifecycle.rollback(connection, 1, note=note),
        lambda: lifecycle.retire(connection, 1, version, note=note),
    ]
    with connection.begin_nested() as part:
        try:
            pick.choice(doings)()
        except ResightError:
            part.rollback()


def stored(connection: Connection) -> dict[int, ModelState]:
    rows = connection.execute(select(models.c.model_row, models.c.state))
    return {row.model_row: ModelState(row.state) for row in rows}


@pytest.mark.parametrize("seed", range(5))
def test_models_stood_where_they_were_seen(catalog: Catalog, seed: int) -> None:
    pick, now = random.Random(seed), BEGINNING
    seen: list[tuple[datetime, dict[int, ModelState]]] = []
    with catalog._write_engine.connect() as connection:
        connection.execute(insert(galleries).values(name="g", create_time=now))
        register(connection, 1, "m0", "live", now)
        for _ in range(200):
            now += timedelta(seconds=1)
            one_change(connection, pick, now)
            seen.append((now + timedelta(milliseconds=500), stored(connection)))
        event = model_events.c
        events = [
            ModelEvent(*row)
            for row in connection.execute(
                select(event.model_row, event.kind, event.create_time).order_by(event.event_row)
            )
        ]
        registered = frozenset(connection.execute(select(model_bundles.c.model_row)).scalars())
        connection.rollback()
    last = seen[-1][1]
    assert {each.kind for each in events} == {"stage", "promote", "rollback", "retire"}
    for time, states in seen:
        told = states_before(time, now=last, registered=registered, events=events)
        assert {row: told[row] for row in states} == states
