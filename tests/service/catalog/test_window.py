"""How the crops of a window are found: in the order of an index, never by sorting the window."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event

from service.catalog import schema
from service.catalog.engine import open_engine
from service.catalog.window import Window, counts_by_camera, next_crops, sampled_rows

CAMERAS = [None, [3], [3, 4]]


@pytest.fixture
def engine(tmp_path: Path):
    opened = open_engine(f"sqlite:///{tmp_path}/catalog.sqlite", pool_size=1, writer=True)
    schema.upgrade(opened)
    yield opened
    opened.dispose()


def plans(engine, read) -> list[str]:
    """The query plans of the statements that ``read`` runs."""
    seen: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, *_) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", note)
        read(connection)
        event.remove(engine, "before_cursor_execute", note)
        assert seen
        return [
            row[3]
            for statement, parameters in seen
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


@pytest.mark.parametrize("cameras", CAMERAS)
def test_a_block_costs_what_it_holds(engine, cameras: list[int] | None) -> None:
    window = Window(1, 10, 10**6, cameras)
    for read in (
        lambda connection: next_crops(connection, window, after=50, limit=64),
        lambda connection: sampled_rows(connection, window, size=5, seed=1),
    ):
        found = plans(engine, read)
        assert any("crop_row>? AND crop_row<?" in step for step in found), found
        assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in found), found


def test_counting_reads_an_index_alone(engine) -> None:
    window = Window(1, 10, 10**6, [3, 4, 5])
    (step,) = plans(engine, lambda connection: counts_by_camera(connection, window))
    assert "COVERING INDEX" in step
