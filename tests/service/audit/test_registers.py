"""What registers tell of a gallery and a time, compared with SQL on the rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, insert

from service.audit.catalog_registers import CatalogRegisters
from service.audit.entry import Entry, stamped
from service.audit.reading import CatalogAudit
from service.audit.tables import Table
from service.catalog.audit import Selection
from service.catalog.models import (
    adaptation_runs,
    blob_removals,
    cameras,
    erasures,
    galleries,
    model_events,
    models,
)
from service.catalog.store import Catalog
from service.domain.identifier import image_key
from service.domain.instant import to_micros

BEGINNING = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ("a", "b", "c")
SPANS = ((None, None), (None, 40), (20, 60), (50, None), (200, None), (None, -1))


def at(seconds: int | None) -> datetime | None:
    return None if seconds is None else BEGINNING + timedelta(seconds=seconds)


@pytest.fixture
def stored(catalog: Catalog) -> Catalog:
    """Rows of three galleries at random times within a hundred seconds."""
    pick = random.Random(5)
    with catalog._write_engine.begin() as connection:
        for name in NAMES:
            connection.execute(insert(galleries).values(name=name, create_time=BEGINNING))
        for number in range(60):
            fill(connection, pick, number)
    return catalog


def fill(connection: Connection, pick: random.Random, number: int) -> None:
    gallery = pick.randrange(3) + 1
    first, second, third = sorted(at(pick.randrange(100)) or BEGINNING for _ in range(3))
    state = pick.choice(["listing", "planned", "running", "done", "cancelled"])
    counts: dict[str, Any] = dict.fromkeys(("listed", "kept", "removed", "absent"), 0)
    connection.execute(
        insert(erasures).values(
            gallery_row=gallery, erasure_id=UUID(int=number), state=state, subject="{}",
            reason=f"of {NAMES[gallery - 1]}", principal="p", more=False, vectors={},
            confirmer="q" if state in ("running", "done") else "", create_time=first,
            confirm_time=second if state in ("running", "done") else None,
            complete_time=third if state in ("done", "cancelled") else None, receipt="", **counts,
        )
    )  # fmt: skip
    ended = pick.random() < 0.7
    connection.execute(
        insert(adaptation_runs).values(
            gallery_row=gallery, run_id=UUID(int=number), token_digest=bytes(32),
            state="succeeded" if ended else "running", holder="h", lease_micros=1, since_row=0,
            until_row=0, start_time=first, update_time=second, end_time=third if ended else None,
            stage="", fraction=0.0, progress_message="", reason="", message="", model_version="",
            new_crops=0, replay_crops=0,
        )
    )  # fmt: skip
    model = insert(models).values(
        gallery_row=gallery, version=f"m{number}", dimension=4, state="retired", create_time=first
    )
    row = connection.execute(model.returning(models.c.model_row)).scalar_one()
    connection.execute(
        insert(model_events).values(
            gallery_row=gallery, model_row=row, kind="retire", actor="caller", reason="",
            create_time=second,
        )
    )  # fmt: skip


def told(catalog: Catalog, wanted: Selection) -> dict[str, Table]:
    with catalog.connect() as connection:
        found = CatalogRegisters(CatalogAudit(connection)).tables((), wanted)
        return {table.name: table for table in found}


@pytest.mark.parametrize("gallery", ["", "b", "nothing"])
@pytest.mark.parametrize(("start", "end"), SPANS)
def test_what_happened_is_what_sql_says(
    stored: Catalog, query: Any, gallery: str, start: int | None, end: int | None
) -> None:
    low = -(2**60) if start is None else to_micros(at(start) or BEGINNING)
    high = 2**60 if end is None else to_micros(at(end) or BEGINNING)
    within = f">= {low} AND {{0}} < {high}"

    def during(column: str) -> str:
        return f"({column} {within.format(column)})"

    joined = "JOIN galleries USING (gallery_row)" + (f" WHERE name = '{gallery}'" if gallery else
                                                      " WHERE 1 = 1")  # fmt: skip
    tables = told(stored, Selection(gallery=gallery, start_time=at(start), end_time=at(end)))
    rows = query(
        f"SELECT erasure_id FROM erasures {joined} AND state <> 'listing' AND ("  # noqa: S608
        f"(confirm_time IS NULL AND ({during('erasures.create_time')}"
        f" OR {during('complete_time')})) OR (confirm_time < {high} AND"
        f" (complete_time IS NULL OR complete_time >= {low})))"
    )
    assert sorted(row[1] for row in tables["erasures"].rows) == ids(rows)
    rows = query(
        f"SELECT run_id FROM adaptation_runs {joined} AND start_time < {high} AND"  # noqa: S608
        f" (end_time IS NULL OR end_time >= {low})"
    )
    assert sorted(row[1] for row in tables["adaptation_runs"].rows) == ids(rows)
    known = f"models.create_time < {high}"
    rows = query(f"SELECT version FROM models {joined} AND {known}")  # noqa: S608
    assert sorted(row[1] for row in tables["models"].rows) == sorted(row[0] for row in rows)
    changed = during("model_events.create_time")
    rows = query(
        f"SELECT version FROM (SELECT model_row, create_time FROM model_events WHERE {changed}) e"  # noqa: S608
        f" JOIN models USING (model_row) {joined}"
    )
    assert sorted(row[2] for row in tables["model_changes"].rows) == sorted(row[0] for row in rows)
    shown = {cell for table in tables.values() for row in table.rows for cell in row}
    if gallery:
        assert not {name for name in NAMES if name != gallery} & shown
        assert not {f"of {name}" for name in NAMES if name != gallery} & shown


def test_images_that_wait_are_counted_by_gallery(catalog: Catalog) -> None:
    wanted = {"a_b": [30, 10, 20], "aXb": [5], "c": []}
    with catalog._write_engine.begin() as connection:
        for name, times in wanted.items():
            connection.execute(insert(galleries).values(name=name, create_time=BEGINNING))
            for time in times:
                key = image_key(name, uuid4())
                connection.execute(insert(blob_removals).values(blob_key=key, create_time=at(time)))

    def rows(**selection: Any) -> list[list[str]]:
        table = told(catalog, Selection(**selection))["images_not_removed"]
        return [list(row) for row in table.rows]

    oldest = {name: stamped(at(min(times))) for name, times in wanted.items() if times}
    assert sorted(rows()) == [["aXb", "1", oldest["aXb"]], ["a_b", "3", oldest["a_b"]]]
    assert rows(gallery="a_b", end_time=at(25)) == [["a_b", "2", oldest["a_b"]]]
    assert rows(gallery="c") == rows(end_time=at(0)) == []


def ids(rows: list[tuple[Any, ...]]) -> list[str]:
    return sorted(str(row[0] if isinstance(row[0], UUID) else UUID(bytes=bytes(row[0])))
                  for row in rows)  # fmt: skip


def test_retention_is_that_of_the_end_of_the_time(
    audited: Callable[..., Any], run: Any, ticking: Any, catalog: Catalog
) -> None:
    """Cameras that get retention of their own, lose it, and get it again, in two galleries."""
    pick = random.Random(3)
    now: dict[tuple[str, str], float | None] = {}
    seen: list[tuple[datetime, dict[tuple[str, str], float | None]]] = []
    with catalog._write_engine.begin() as connection:
        for row, name in enumerate(NAMES, 1):
            connection.execute(insert(galleries).values(name=name, create_time=BEGINNING))
            for camera in ("c1", "c2"):
                connection.execute(
                    insert(cameras).values(
                        gallery_row=row, camera_id=camera, display_name="", zone="",
                        create_time=BEGINNING - timedelta(days=1000),
                    )
                )  # fmt: skip

    async def work() -> None:
        async with audited(clock=ticking) as audit:
            for number in range(30):
                place = (pick.choice(("a", "b")), pick.choice(("c1", "c2")))
                days = pick.choice([None, 2.5, 30.0])
                # What was committed is, whatever its caller was told; OK alone is an older entry.
                outcome, changed = pick.choice(
                    [("OK", True), ("OK", None), ("NOT_FOUND", None), ("CANCELLED", None),
                     ("CANCELLED", True), ("DEADLINE_EXCEEDED", True)]
                )  # fmt: skip
                notes = {"camera_id": place[1], "retention_days": days}
                if changed:
                    notes["changed"] = True
                facts = {"event": "ended", "outcome": outcome, "notes": notes}
                await audit.log.record(
                    Entry("AdminService/UpdateCameraRetention", f"key:{number}", place[0], facts)
                )
                if changed or outcome == "OK":
                    now[place] = days
                ticking.time += timedelta(seconds=5)
                seen.append((ticking.time, dict(now)))
                ticking.time += timedelta(seconds=5)

    run(work())
    rows = {name: number for number, name in enumerate(NAMES, 1)}
    with catalog._write_engine.begin() as connection:
        for (gallery, camera), days in now.items():
            here = (cameras.c.gallery_row == rows[gallery], cameras.c.camera_id == camera)
            connection.execute(cameras.update().where(*here).values(retention_days=days))
    assert any(days is not None for days in now.values())
    for gallery in ("", "a"):
        for time, states in seen:
            found = told(catalog, Selection(gallery=gallery, end_time=time))["camera_retention"]
            expected = sorted(
                [place[0], place[1], "", f"{days:g}"]
                for place, days in states.items()
                if days is not None and gallery in ("", place[0])
            )
            assert sorted(map(list, found.rows)) == expected
