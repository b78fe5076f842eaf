"""The database that a snapshot is restored into: found empty, filled whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from resight.durable import flush_folder
from resight.errors import FailedPrecondition
from service.catalog import schema
from service.catalog.engine import open_engine
from service.catalog.erasure_again import erase_again
from service.catalog.models import metadata
from service.erasure_ledger import erased_blobs
from service.snapshot import catalog_copy
from service.snapshot.manifest import Told

__all__ = ["fill_database", "filled_part", "not_empty", "sqlite_file"]

# Rows of processes that are gone.
TRANSIENT_TABLES = ("replica_positions", "replicas")


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for another database."""
    made = make_url(url)
    return Path(made.database or "") if made.get_backend_name() == "sqlite" else None


def filled_part(url: str) -> str | None:
    """What is in a database already; None when it is empty."""
    file = sqlite_file(url)
    if file is not None:
        found = [path for path in (file, *_beside(file)) if path.exists()]
        return str(found[0]) if found else None
    with _connected(url) as connection:
        return _filled_table(connection)


def fill_database(
    url: str,
    catalog: Path,
    *,
    erasures: Path,
    token: str,
    told: Told,
    step: Callable[[str], None],
) -> int:
    """Make the database hold a copied catalog, of this code's schema and without the crops that
    the erasure ledger names; returns how many of those there were.

    Args:
        url: Of an empty database, or of one that the restore with this token began to fill.
        catalog: A SQLite file on the same disk as the one that a SQLite URL names; used up.
        erasures: The ledger's folder.
        token: Of this restore; on PostgreSQL committed with the rows.
        told: Progress.
        step: Called between any two steps.

    Raises:
        FailedPrecondition: the database is not empty, or the ledger is damaged.
    """
    target = sqlite_file(url)
    if target is None:
        return _fill_postgresql(url, catalog, erasures, token, told, step)
    # They are of this restore: the target was empty when it began.
    for old in (target, *_beside(target)):
        old.unlink(missing_ok=True)
    with _connected(f"sqlite:///{catalog}", writer=True) as connection:
        schema.upgrade_to(connection)
        erased = _settle(connection, erasures)
    with catalog.open("rb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
    step("catalog upgraded")
    catalog.rename(target)
    flush_folder(target.absolute().parent)
    return erased


def not_empty(what: str) -> FailedPrecondition:
    """Why nothing is restored."""
    return FailedPrecondition(
        f"{what} is there already; a snapshot is restored only into an empty data directory, "
        "database and blob store: name others, or move these away (leave the erasure ledger where "
        "it is)",
        field="data_dir",
        reason="RESTORE_TARGET_NOT_EMPTY",
    )


def _fill_postgresql(
    url: str,
    catalog: Path,
    erasures: Path,
    token: str,
    told: Told,
    step: Callable[[str], None],
) -> int:
    """One transaction: a restore that is killed leaves the database as it was."""
    copied = create_engine(f"sqlite:///{catalog}")
    try:
        with copied.connect() as source, _connected(url, writer=True) as target:
            if _restored_by(target) == token:
                # It was killed between the commit and the end.
                return 0
            filled = _filled_table(target)
            if filled is not None:
                raise not_empty(filled)
            for each in reversed(list(catalog_copy.tables_of(target).values())):
                each.drop(target)
            target.execute(text(f"DROP TABLE IF EXISTS {catalog_copy.VERSION_TABLE}"))
            schema.upgrade_to(target, schema.revision_of(source) or "head")
            catalog_copy.fill(source, target, told)
            schema.upgrade_to(target)
            erased = _settle(target, erasures)
            target.execute(text(f"COMMENT ON TABLE galleries IS 'restore {token}'"))
            step("catalog filled")
        return erased
    finally:
        copied.dispose()


def _restored_by(connection: Connection) -> str:
    """The token of the restore that made the tables; empty when none did."""
    asked = text("SELECT obj_description(to_regclass('galleries'), 'pg_class')")
    found = connection.execute(asked).scalar()
    return str(found or "").removeprefix("restore ")


def _filled_table(connection: Connection) -> str | None:
    counts = catalog_copy.row_counts(connection)
    for name, rows in counts.items():
        if rows or name not in metadata.tables:
            return f"table {name} of the database"
    return None


def _settle(connection: Connection, erasures: Path) -> int:
    """Forget processes that are gone, and erase again what the ledger names."""
    tables = catalog_copy.tables_of(connection)
    for name in TRANSIENT_TABLES:
        if name in tables:
            connection.execute(tables[name].delete())
    now = datetime.now(UTC)
    return sum(erase_again(connection, block, now=now) for block in erased_blobs(erasures))


@contextmanager
def _connected(url: str, *, writer: bool = False) -> Iterator[Connection]:
    """A connection; what it writes is committed when the block ends well."""
    engine = open_engine(url, pool_size=1, writer=writer)
    try:
        with engine.begin() if writer else engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _beside(target: Path) -> list[Path]:
    """What SQLite keeps beside a file; of another catalog it would damage the restored one."""
    return [target.with_name(target.name + end) for end in ("-wal", "-shm", "-journal")]
