"""Schema versions: made, compared, upgraded, refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from resight.errors import FailedPrecondition, InvalidArgument, Unavailable
from service.catalog import schema
from service.catalog.engine import open_engine
from service.catalog.models import metadata


@pytest.fixture
def engine(tmp_path: Path):
    opened = open_engine(f"sqlite:///{tmp_path}/catalog.sqlite", pool_size=1, writer=True)
    yield opened
    opened.dispose()


def test_migrations_make_what_the_models_say(engine) -> None:
    assert schema.upgrade(engine) == (None, schema.head_revision())
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert schema.upgrade(engine) == (schema.head_revision(), schema.head_revision())


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=str)
def test_the_tables_can_be_made_in_postgresql(table) -> None:
    made = str(CreateTable(table).compile(dialect=postgresql.dialect()))
    keyed = {"embeddings", "changes", "blob_removals", "adaptation_leases", "model_bundles"}
    assert "BIGSERIAL" in made or table.name in keyed | {
        "adaptation_run_crops",
        "audit_checkpoints",
        "audit_entries",
        "audit_signers",
        "erasure_crops",
        "model_failures",
        "model_fillings",
        "model_removals",
        "replicas",
        "replica_positions",
    }
    names = [constraint.name for constraint in table.constraints] + [i.name for i in table.indexes]
    assert all(len(name) <= 63 for name in names), "PostgreSQL would cut the name"


def test_an_empty_sqlite_file_is_upgraded_unless_told_otherwise(engine) -> None:
    with pytest.raises(FailedPrecondition, match="resight db upgrade"):
        schema.prepare(engine, auto_upgrade=False)
    assert schema.current_revision(engine) is None
    schema.prepare(engine, auto_upgrade=True)
    assert schema.current_revision(engine) == schema.head_revision()


def test_acknowledged_means_flushed(engine) -> None:
    with engine.connect() as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"this is not a database at all" * 100)
    engine = open_engine(f"sqlite:///{tmp_path}/catalog.sqlite", pool_size=1, writer=True)
    with pytest.raises(Unavailable, match="not a database"):
        schema.prepare(engine, auto_upgrade=True)
    engine.dispose()


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "nonsense secret", "postgresql+nope://secret"]
)
def test_a_bad_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidArgument, match="database_url") as refused:
        open_engine(url, pool_size=1, writer=False)
    assert "secret" not in str(refused.value)


def test_the_command_upgrades_and_says_so(tmp_path: Path) -> None:
    def run() -> dict[str, object]:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from resight.cli import main; main()",
                "db",
                "upgrade",
                "--data",
                str(tmp_path),
                "--json",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    head = schema.head_revision()
    assert run() == {"from": None, "to": head, "upgraded": True}
    assert run() == {"from": head, "to": head, "upgraded": False}
