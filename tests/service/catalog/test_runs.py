"""Leases in the database itself: several processes at once, and an older catalog."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from service.catalog import gallery_reads, run_reads, runs, schema
from service.catalog.engine import open_engine
from service.catalog.models import adaptation_leases, adaptation_runs, galleries, models

RACER = Path(__file__).parent / "racing_starts.py"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
GALLERIES = 12


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


@pytest.fixture
def engine(url: str):
    opened = open_engine(url, pool_size=1, writer=True)
    schema.upgrade(opened)
    with opened.begin() as connection:
        for number in range(GALLERIES):
            connection.execute(
                insert(galleries).values(name=f"g{number}", position=0, create_time=NOW)
            )
    yield opened
    opened.dispose()


def start(connection, gallery_row: int, holder: str, now: datetime) -> tuple:
    return runs.start_run(
        connection,
        gallery_row,
        run_id=uuid4(),
        token_digest=b"x" * 32,
        holder=holder,
        lease=timedelta(seconds=60),
        now=now,
    )


def test_of_three_processes_one_thread_wins_each_gallery(engine, url: str) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, str(RACER), url, f"p{number}", "4", str(GALLERIES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = [
        line.split()
        for racer in racers
        for line in racer.communicate(timeout=100)[0].split("\n")
        if line
    ]
    assert all(racer.returncode == 0 for racer in racers)
    assert len(told) == 3 * 4 * GALLERIES
    winners = {gallery: holder for what, gallery, holder in told if what == "won"}
    assert Counter(what for what, _, _ in told) == {
        "won": GALLERIES,
        "LEASE_HELD": 11 * GALLERIES,
    }
    assert len(winners) == GALLERIES
    with engine.connect() as connection:
        stored = connection.execute(
            select(adaptation_runs.c.gallery_row, adaptation_runs.c.holder)
        ).all()
    assert {str(row.gallery_row): row.holder for row in stored} == winners
    assert len(stored) == GALLERIES


def test_the_database_itself_takes_no_second_lease(engine) -> None:
    with engine.begin() as connection:
        record, took_over = start(connection, 1, "a", NOW)
        assert not took_over
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(
            insert(adaptation_leases).values(gallery_row=1, run_row=record.run_row, expire_time=NOW)
        )


def test_the_last_instant_of_a_lease_is_the_first_that_frees_it(engine) -> None:
    with engine.begin() as connection:
        start(connection, 1, "a", NOW)
        with pytest.raises(Exception, match="a holds the lease"):
            start(connection, 1, "b", NOW + timedelta(seconds=60, microseconds=-1))
        record, took_over = start(connection, 1, "b", NOW + timedelta(seconds=60))
        assert took_over
        assert [
            run.run.state.value for run in run_reads.list_runs(connection, 1, before=None, limit=9)
        ] == [
            "running",
            "abandoned",
        ]
        assert run_reads.leases(connection) == {1: NOW + timedelta(seconds=120)}
        assert record.run.lease_expire_time == NOW + timedelta(seconds=120)


def test_a_catalog_of_the_first_schema_is_upgraded_with_what_it_holds(url: str) -> None:
    old = open_engine(url, pool_size=1, writer=True)
    with old.begin() as connection:
        command.upgrade(schema._config(connection), "0001")
    with old.begin() as connection:
        connection.execute(
            text("INSERT INTO galleries (name, position, create_time) VALUES ('site', 7, 0)")
        )
        connection.execute(
            insert(models).values(
                gallery_row=1, version="v1", dimension=4, state="live", create_time=NOW
            )
        )
    assert schema.upgrade(old) == ("0001", schema.head_revision())
    with old.begin() as connection:
        (gallery,) = gallery_reads.all_galleries(connection)
        assert (gallery.name, gallery.model_version) == ("site", "v1")
        start(connection, 1, "a", NOW)
    old.dispose()
