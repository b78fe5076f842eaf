"""Engines: how a connection to the catalog is opened and how its transactions begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from resight.errors import InvalidArgument, Unavailable
from service.private_files import make_private_file
from service.telemetry import DATABASE_ERRORS

__all__ = ["open_engine", "unavailable", "writing"]

BUSY_TIMEOUT_MS = 10_000
# A long read (a report of the audit, a snapshot) lets SQLite's log grow by what is written
# meanwhile; beyond this it is given back afterwards.
WAL_BYTES = 64 * 1024 * 1024
CONNECT_SECONDS = 10
# A server that is out of reach without a word: the system would wait for a quarter of an hour, and
# a drain with it.
_NETWORK = {
    "tcp_user_timeout": 1000 * CONNECT_SECONDS,
    "keepalives_idle": CONNECT_SECONDS,
    "keepalives_interval": CONNECT_SECONDS // 2,
    "keepalives_count": 2,
}


def open_engine(url: str, *, pool_size: int, writer: bool) -> Engine:
    """An engine whose acknowledged commits survive a crash, and whose reads see one state each.

    Args:
        url: SQLAlchemy URL; SQLite or PostgreSQL.
        pool_size: Most connections.
        writer: Whether its transactions write; on SQLite they then take the write lock at once,
            because a read transaction that turns into a write can fail without waiting.

    Raises:
        InvalidArgument: the URL is malformed, of another database, or its driver is missing.
    """
    try:
        backend = make_url(url).get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise InvalidArgument(
                f"database_url names {backend!r}; use sqlite:///… or postgresql+…://…",
                field="database_url",
            )
        options: dict[str, Any] = {} if backend == "sqlite" else {"pool_pre_ping": True}
        if backend == "postgresql":
            # The system would try for two minutes, in which a start says nothing.
            network = {"connect_timeout": CONNECT_SECONDS} | _NETWORK
            told = make_url(url).query
            options["connect_args"] = {
                name: value for name, value in network.items() if name not in told
            }
        if backend == "postgresql" and not writer:
            # Its own default gives every statement of a transaction another state.
            options["isolation_level"] = "REPEATABLE READ"
        engine = create_engine(url, pool_size=pool_size, max_overflow=0, **options)
    except (ArgumentError, ModuleNotFoundError) as error:
        # The URL may hold a password, so it is not repeated here.
        raise InvalidArgument(
            f"database_url cannot be used ({type(error).__name__}); check its form and that the "
            "driver it names is installed",
            field="database_url",
        ) from error
    if backend == "sqlite":
        if writer:
            _keep_private(engine)
        _prepare_sqlite(engine, begin="BEGIN IMMEDIATE" if writer else "BEGIN")
    elif writer:
        _flush_on_postgresql(engine)
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction on this thread, for whoever works on the catalog without a service.

    Raises:
        Unavailable: the database does not answer.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise unavailable(error) from error


def unavailable(error: SQLAlchemyError) -> Unavailable:
    """What a database error means to a caller: try again later. It is counted."""
    DATABASE_ERRORS.inc()
    cause = getattr(error, "orig", None) or error
    # A driver's text may have several lines, and logs and errors are one each.
    text = " ".join(str(cause).split())
    return Unavailable(
        "the catalog does not answer; try again",
        detail=f"{type(cause).__name__}: {text}",
        field="database_url",
        reason="CATALOG_UNAVAILABLE",
    )


def _keep_private(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def _connecting(_dialect: object, _record: object, arguments: Any, _options: object) -> None:
        if arguments and arguments[0] != ":memory:" and not arguments[0].startswith("file:"):
            make_private_file(arguments[0])


def _prepare_sqlite(engine: Engine, *, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        # The driver's own implicit BEGIN would come too late and could not be IMMEDIATE.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "cache_size = -65536",
            f"journal_size_limit = {WAL_BYTES}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _flush_on_postgresql(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        # A server may be set to acknowledge before it flushes; what is stricter than `on` stays.
        cursor = connection.cursor()
        cursor.execute("SHOW synchronous_commit")
        if cursor.fetchone() == ("off",):
            cursor.execute("SET synchronous_commit = on")
        cursor.close()
        connection.commit()
