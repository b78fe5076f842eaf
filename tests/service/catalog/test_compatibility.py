"""Schemas of the past and of a future that is made up here, and which code may run on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from alembic.config import Config
from sqlalchemy import Engine, create_engine, inspect, text

from resight.errors import FailedPrecondition, Unavailable
from service.catalog import compatibility, replicas, schema
from service.catalog.engine import open_engine

RESIGHT = Path(sys.executable).with_name("resight")
OURS = schema.head_revision()
MIGRATION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = {revision!r}, {before!r}, None, None
{mark}
def upgrade():
    op.create_table({table!r}, sa.Column("anything", sa.Integer()))
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url, pool_size=1, writer=True)
    yield opened
    opened.dispose()


@pytest.fixture
def shared(postgresql_url: str) -> Iterator[Engine]:
    opened = open_engine(postgresql_url, pool_size=2, writer=True)
    yield opened
    opened.dispose()


@pytest.fixture
def newer_code(tmp_path: Path) -> Callable[..., None]:
    """``newer_code(engine, "compatible", "breaking")``: what two releases from now would do."""

    def run(engine: Engine, *kinds: str) -> None:
        for old in tmp_path.glob("v9*.py"):
            old.unlink()
        before = OURS
        for number, kind in enumerate(kinds, start=1):
            revision = f"9{number:03}"
            mark = f"compatible_from = {OURS!r}" if kind == "compatible" else ""
            (tmp_path / f"v{revision}.py").write_text(
                MIGRATION.format(revision=revision, before=before, mark=mark, table=f"t{revision}")
            )
            before = revision
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "_config", with_migrations_of(tmp_path, schema._config))
            schema.upgrade(engine)

    return run


def with_migrations_of(folder: Path, config: Callable[..., Config]) -> Callable[..., Config]:
    versions = Path(schema.__file__).with_name("migrations") / "versions"

    def extended(*arguments: object) -> Config:
        made = config(*arguments)
        made.set_main_option("version_locations", os.pathsep.join((str(versions), str(folder))))
        return made

    return extended


def tables(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def upgrade_by_command(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RESIGHT, "db", "upgrade", "--json"],
        env=os.environ | {"RESIGHT_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def id_of(name: str) -> UUID:
    return UUID(bytes=name.encode().ljust(16))


def register(engine: Engine, name: str, revision: str | None, *, silent_for: float = 0) -> None:
    with engine.begin() as connection:
        replicas.register(connection, id_of(name), name, revision or "")
        connection.execute(
            text(
                "UPDATE replicas SET schema_revision = :revision,"
                " heartbeat_time = heartbeat_time - :silent WHERE name = :name"
            ),
            {"revision": revision, "silent": int(silent_for * 1e6), "name": name},
        )


def test_who_made_the_schema_wrote_down_which_code_may_run_on_it(
    engine: Engine, newer_code: Callable[..., None]
) -> None:
    with engine.begin() as connection:
        schema.upgrade_to(connection, "0003")
        assert compatibility.marked(connection) == "0003"
    assert schema.upgrade(engine) == ("0003", OURS)
    with engine.connect() as connection:
        assert compatibility.marked(connection) == "0004"
    newer_code(engine, "compatible", "breaking", "compatible")
    with engine.connect() as connection:
        assert compatibility.marked(connection) == "9002"


def test_this_code_runs_on_a_newer_schema_that_allows_it(
    engine: Engine, database_url: str, newer_code: Callable[..., None]
) -> None:
    newer_code(engine, "compatible", "compatible")
    there = tables(engine)
    schema.prepare(engine, auto_upgrade=True)
    with engine.begin() as connection:
        assert schema.check(connection) == OURS
    assert schema.upgrade(engine) == ("9002", "9002")
    if engine.dialect.name == "postgresql":
        done = upgrade_by_command(database_url)
        assert json.loads(done.stdout) == {"from": "9002", "to": "9002", "upgraded": False}
    assert (tables(engine), schema.current_revision(engine)) == (there, "9002")


def test_this_code_is_refused_by_a_newer_schema_that_does_not(
    engine: Engine, database_url: str, newer_code: Callable[..., None]
) -> None:
    newer_code(engine, "compatible", "breaking")
    there = tables(engine)

    def checked() -> None:
        with engine.begin() as connection:
            schema.check(connection)

    for attempt in (
        lambda: schema.prepare(engine, auto_upgrade=True),
        lambda: schema.upgrade(engine),
        checked,
    ):
        with pytest.raises(FailedPrecondition, match=r"9002.*newer") as refused:
            attempt()
        assert refused.value.reason == "CATALOG_SCHEMA_NEWER"
    if engine.dialect.name == "postgresql":
        done = upgrade_by_command(database_url)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert all(word in done.stderr for word in ("9002", OURS, "newer resight", "snapshot"))
    assert (tables(engine), schema.current_revision(engine)) == (there, "9002")


def test_a_schema_that_nobody_marked_is_refused_when_it_is_newer(engine: Engine) -> None:
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = '9001', compatible_from = NULL")
        )
    with pytest.raises(FailedPrecondition, match="9001"):
        schema.prepare(engine, auto_upgrade=True)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE alembic_version DROP COLUMN compatible_from"))
    with pytest.raises(FailedPrecondition, match="9001"):
        schema.prepare(engine, auto_upgrade=True)


def test_replicas_that_could_not_go_on_are_named_and_nothing_is_changed(
    shared: Engine, newer_code: Callable[..., None]
) -> None:
    schema.upgrade(shared)
    register(shared, "left", OURS)
    register(shared, "right", OURS)
    there = tables(shared)
    with pytest.raises(FailedPrecondition, match=rf"left \(of schema {OURS}\), right") as refused:
        newer_code(shared, "compatible", "breaking")
    assert refused.value.reason == "REPLICAS_TOO_OLD"
    assert (tables(shared), schema.current_revision(shared)) == (there, OURS)
    newer_code(shared, "compatible")
    assert schema.current_revision(shared) == "9001"


def test_the_dead_stop_no_upgrade_and_are_judged_when_they_come_back(
    shared: Engine, newer_code: Callable[..., None]
) -> None:
    schema.upgrade(shared)
    register(shared, "dead", OURS, silent_for=60)
    newer_code(shared, "breaking")
    with shared.begin() as connection:
        assert replicas.all_replicas(connection) == []
        assert not replicas.beat(connection, id_of("dead"))
        with pytest.raises(FailedPrecondition, match="9001"):
            schema.check(connection)


@pytest.mark.parametrize(("old", "passes"), [("0003", False), ("0004", True)])
def test_replicas_of_code_that_tells_nothing(shared: Engine, old: str, *, passes: bool) -> None:
    """They are of the schema they run on, or of the last before replicas told."""
    with shared.begin() as connection:
        schema.upgrade_to(connection, old)
        connection.execute(
            text(
                "INSERT INTO replicas VALUES (decode(repeat('07', 16), 'hex'), 'old',"
                " extract(epoch FROM now()) * 1000000, extract(epoch FROM now()) * 1000000)"
            )
        )
    if passes:
        assert schema.upgrade(shared) == (old, OURS)
        with shared.connect() as connection:
            (still,) = replicas.all_replicas(connection)
        assert still.name == "old"
    else:
        with pytest.raises(FailedPrecondition, match=rf"old \(of schema {old}\)"):
            schema.upgrade(shared)
        assert schema.current_revision(shared) == old


def test_who_registers_waits_for_the_upgrade_and_is_then_refused(
    shared: Engine, postgresql_url: str, newer_code: Callable[..., None]
) -> None:
    schema.upgrade(shared)
    other = create_engine(postgresql_url)
    outcome: list[object] = []

    def come() -> None:
        try:
            with other.begin() as connection:
                outcome.append(schema.check(connection))
        except FailedPrecondition as error:
            outcome.append(error.reason)

    coming = threading.Thread(target=come)
    with shared.begin() as connection:
        compatibility.hold(connection)
        coming.start()
        coming.join(0.3)
        assert coming.is_alive()
        # What newer code's upgrade leaves behind, without its tables.
        connection.execute(
            text("UPDATE alembic_version SET version_num = '9001', compatible_from = '9001'")
        )
    coming.join(120)
    other.dispose()
    assert outcome == ["CATALOG_SCHEMA_NEWER"]


def test_an_upgrade_gives_up_rather_than_hold_every_query_back(
    shared: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared.begin() as connection:
        schema.upgrade_to(connection, "0004")
    monkeypatch.setattr(compatibility.hold, "__kwdefaults__", {"patience": "200ms"})
    with shared.begin() as reading:
        reading.execute(text("SELECT count(*) FROM cameras"))
        with pytest.raises(Unavailable, match="LockNotAvailable"):
            schema.upgrade(shared)
    assert schema.current_revision(shared) == "0004"
    assert schema.upgrade(shared) == ("0004", OURS)
