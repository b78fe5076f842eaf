"""Which code may run on which schema, so that replicas can be exchanged one by one.

A migration that only adds what older code leaves alone says from which revision on code goes on
beside it: ``compatible_from`` in its module. One that says nothing needs code of its own revision.
The latest of these is kept beside the version in Alembic's own row, so both change in one
transaction: code that does not know a schema still reads whether it may run on it.
"""

from __future__ import annotations

from typing import NamedTuple

from alembic.script import ScriptDirectory
from sqlalchemy import BigInteger, Connection, cast, column, func, inspect, select, table, text
from sqlalchemy.engine import Inspector

from service.catalog.database_clock import database_now

__all__ = ["Runner", "hold", "keep", "lowest_code", "mark", "marked", "runners"]

VERSION_TABLE = "alembic_version"
MARK = "compatible_from"
# Code before the one that says in `replicas` what it works with is at most of this revision.
SILENT = "0004"
# Any number of our own: held shared by who registers, alone by who changes the schema.
LOCK = 0x7265_5369_6768_74

_version = table(VERSION_TABLE, column("version_num"), column(MARK))
_replicas = table(
    "replicas",
    column("replica_id"),
    column("name"),
    column("heartbeat_time"),
    column("schema_revision"),
)


class Runner(NamedTuple):
    """A replica that lives, and the schema its code was made for."""

    name: str
    revision: str


def lowest_code(scripts: ScriptDirectory, revision: str) -> str:
    """The revision of the oldest code that may run on a schema."""
    order = [script.revision for script in scripts.walk_revisions("base", revision)][::-1]
    needed = [getattr(scripts.get_revision(each).module, MARK, each) for each in order]
    return max(needed, key=order.index)


def mark(connection: Connection, lowest: str) -> None:
    """Write down the oldest code that may run on the schema as it is now."""
    columns = {found["name"] for found in inspect(connection).get_columns(VERSION_TABLE)}
    if MARK not in columns:
        connection.execute(text(f"ALTER TABLE {VERSION_TABLE} ADD COLUMN {MARK} VARCHAR(32)"))
    connection.execute(_version.update().values({MARK: lowest}))


def marked(connection: Connection) -> str | None:
    """The oldest code that may run on the schema, when who made the schema has said so."""
    found = inspect(connection)
    if not _has(found, VERSION_TABLE, MARK):
        return None
    lowest: str | None = connection.execute(select(_version.c[MARK])).scalar()
    return lowest


def keep(connection: Connection) -> None:
    """Let nobody change the schema until the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock_shared(LOCK)))


def hold(connection: Connection, *, patience: str = "5s") -> None:
    """Change the schema alone; whoever registers waits for the end of the transaction.

    A lock on a table that is not had within ``patience`` fails the change: every query of the
    service would queue up behind it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        connection.execute(select(func.set_config("lock_timeout", patience, True)))


def runners(connection: Connection, schema: str, *, expire_seconds: float) -> list[Runner]:
    """Replicas that may be serving, on a schema of any revision; the dead ones are forgotten.

    One that was held for dead and comes back registers anew, and is judged then.
    """
    found = inspect(connection)
    if connection.dialect.name != "postgresql" or not found.has_table(_replicas.name):
        return []
    age = cast(database_now(), BigInteger) - _replicas.c.heartbeat_time
    connection.execute(_replicas.delete().where(age > int(expire_seconds * 1e6)))
    told = _has(found, _replicas.name, "schema_revision")
    revision = _replicas.c.schema_revision if told else text("NULL")
    rows = connection.execute(select(_replicas.c.name, revision).order_by(_replicas.c.name))
    return [Runner(name, said or min(schema, SILENT)) for name, said in rows]


def _has(found: Inspector, name: str, wanted: str) -> bool:
    return found.has_table(name) and wanted in {each["name"] for each in found.get_columns(name)}
