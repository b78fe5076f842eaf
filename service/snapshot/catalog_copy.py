"""The catalog copied between databases, row by row, as the drivers give the values.

The tables are those that the database has, not those of this code, so an older schema is copied
as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    ColumnElement,
    Connection,
    MetaData,
    Table,
    Text,
    cast,
    column,
    create_engine,
    func,
    insert,
    select,
    table,
    text,
    type_coerce,
)
from sqlalchemy.types import NullType

from resight.errors import DataLoss, FailedPrecondition
from service.catalog import schema

__all__ = [
    "VERSION_TABLE",
    "copy_from_postgresql",
    "copy_from_sqlite",
    "fill",
    "row_counts",
    "tables_of",
]

VERSION_TABLE = "alembic_version"
BLOCK = 2000

Told = Callable[[str, int], None]


def copy_from_sqlite(source: Path, target: Path) -> None:
    """One state of a SQLite catalog as a new file, beside whoever writes to the source.

    ``VACUUM INTO`` and not the backup interface: that copies pages that are free, too, and in
    them lie the vectors of deleted crops.

    Raises:
        DataLoss: the source is damaged.
    """
    with closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, timeout=30)) as connection:
        try:
            connection.execute("VACUUM INTO ?", (str(target),))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            raise _unreadable(source, str(error)) from error
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise _unreadable(source, answer)


def copy_from_postgresql(source: Connection, target: Path, told: Told) -> None:
    """One state of a PostgreSQL catalog as a new SQLite file.

    Args:
        source: Sees one state throughout (``REPEATABLE READ``).
        told: Table and rows copied since the last call.

    Raises:
        FailedPrecondition: the schema is newer than this code, or not there.
    """
    revision = schema.revision_of(source)
    if revision is None:
        raise FailedPrecondition(
            "the database holds no catalog; name that of the service with RESIGHT_DATABASE_URL",
            field="database_url",
            reason="CATALOG_MISSING",
        )
    engine = create_engine(f"sqlite:///{target}")
    try:
        with engine.begin() as connection:
            # A file of our own that is flushed when it is finished.
            schema.upgrade_to(connection, revision)
            fill(source, connection, told)
    finally:
        engine.dispose()


def fill(source: Connection, target: Connection, told: Told) -> None:
    """Copy every row into the empty tables of another database of the same schema, and let both
    count rows on from the same numbers.
    """
    theirs, ours = tables_of(source), tables_of(target)
    if theirs.keys() != ours.keys():
        raise FailedPrecondition(
            f"the catalog has tables that its schema does not know or lacks some of them "
            f"({', '.join(sorted(theirs.keys() ^ ours.keys()))}); restore it from a backup",
            field="database_url",
            reason="CATALOG_DAMAGED",
        )
    for name in ours:
        _copy_table(source, theirs[name], target, ours[name], told)
    for name, newest in _sequences(source, theirs).items():
        _set_sequence(target, ours[name], newest)


def tables_of(connection: Connection) -> Mapping[str, Table]:
    """The tables as the database has them, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    return {
        each.name: each
        for each in found.sorted_tables
        if each.name != VERSION_TABLE and not each.name.startswith("sqlite_")
    }


def row_counts(connection: Connection) -> dict[str, int]:
    """Rows by table."""
    return {
        name: connection.execute(select(func.count()).select_from(each)).scalar_one()
        for name, each in sorted(tables_of(connection).items())
    }


def _copy_table(
    source: Connection, theirs: Table, target: Connection, ours: Table, told: Told
) -> None:
    names = [each.name for each in ours.columns]
    if set(names) != set(theirs.columns.keys()):
        raise FailedPrecondition(
            f"table {ours.name} of the catalog has other columns than its schema says; restore it "
            "from a backup",
            field="database_url",
            reason="CATALOG_DAMAGED",
        )
    wanted = select(*[_as_stored(theirs.columns[name]) for name in names])
    statement = wanted.order_by(*theirs.primary_key.columns)
    rows = source.execution_options(stream_results=True, yield_per=BLOCK).execute(statement)
    into = insert(table(ours.name, *[column(name) for name in names]))
    flags = [place for place, name in enumerate(names) if isinstance(ours.c[name].type, Boolean)]
    for part in rows.partitions():
        values = [list(row) for row in part]
        for row in values:
            for place in flags:
                row[place] = None if row[place] is None else bool(row[place])
        target.execute(into, [dict(zip(names, row, strict=True)) for row in values])
        told(ours.name, len(values))


def _as_stored(each: Any) -> ColumnElement[Any]:
    """A column without any conversion; JSON as its text."""
    if isinstance(each.type, JSON):
        return cast(each, Text).label(each.name)
    return type_coerce(each, NullType).label(each.name)


def _sequences(connection: Connection, tables: Mapping[str, Table]) -> dict[str, int]:
    """The largest row number ever given in each table that numbers its rows."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT name, seq FROM sqlite_sequence"))
        return {row.name: int(row.seq) for row in rows if row.name in tables}
    found: dict[str, int] = {}
    for each in tables.values():
        sequence = _sequence_name(connection, each)
        if sequence is not None:
            space, _, name = sequence.rpartition(".")
            counter = table(name, column("last_value"), column("is_called"), schema=space or None)
            row = connection.execute(select(counter)).one()
            found[each.name] = int(row.last_value) if row.is_called else 0
    return found


def _set_sequence(connection: Connection, each: Table, newest: int) -> None:
    if newest == 0:
        return
    if connection.dialect.name == "sqlite":
        values = {"name": each.name, "seq": newest}
        statement = text("DELETE FROM sqlite_sequence WHERE name = :name")
        connection.execute(statement, {"name": each.name})
        connection.execute(text("INSERT INTO sqlite_sequence VALUES (:name, :seq)"), values)
        return
    sequence = _sequence_name(connection, each)
    if sequence is not None:
        connection.execute(select(func.setval(sequence, newest)))


def _sequence_name(connection: Connection, each: Table) -> str | None:
    keys = list(each.primary_key.columns)
    if len(keys) != 1:
        return None
    asked = select(func.pg_get_serial_sequence(each.name, keys[0].name))
    name: str | None = connection.execute(asked).scalar()
    return name


def _unreadable(source: Path, what: str) -> DataLoss:
    return DataLoss(
        f"catalog {source} is damaged ({what}); restore an earlier snapshot",
        field="database_url",
        reason="CATALOG_DAMAGED",
    )
