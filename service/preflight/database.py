"""The database that ``database_url`` names: there, of a schema that fits, and of one time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from resight.errors import FailedPrecondition, ResightError, Unavailable
from service.catalog import schema
from service.catalog.engine import open_engine
from service.preflight.clock import refuse_wrong_clock
from service.settings import ServiceSettings

__all__ = ["check_database", "refuse_unreachable"]

_FIELD = "database_url"
_SQLITE = b"SQLite format 3\0"
_VARIABLE = "RESIGHT_DATABASE_URL or the file of RESIGHT_DATABASE_URL_FILE"


def refuse_unreachable(settings: ServiceSettings) -> None:
    """Connect once, where a server has to answer; of a file, see that it is one. Makes nothing.

    Raises:
        InvalidArgument, FailedPrecondition, Unavailable: the message names the setting, what is
            wrong in one line, and the fix; never the URL, which may hold a password.
    """
    with _connected(settings):
        pass


def check_database(settings: ServiceSettings, now: datetime) -> str:
    """Reachable, of a schema that a start accepts, and not in another time; what was found.

    Raises:
        InvalidArgument, FailedPrecondition, Unavailable: a start would be refused.
    """
    with _connected(settings) as connection:
        if connection is None:
            return "there is none yet; a start makes it"
        current, head = schema.revision_of(connection), schema.head_revision()
        own = connection.dialect.name == "sqlite" and settings.catalog.auto_upgrade
        if current == head:
            refuse_wrong_clock(connection, settings, now)
            return f"schema {current}"
        if current is None or schema.is_known(current):
            if own:
                return f"schema {current or 'none'}; a start upgrades it to {head}"
            raise schema.too_old(current)
        schema.check(connection)
        return f"schema {current}, newer than this version's {head}, which may run on it"


@contextmanager
def _connected(settings: ServiceSettings) -> Iterator[Connection | None]:
    """A connection that changes nothing; None where a start would make the file."""
    url = settings.resolved_database_url()
    engine = open_engine(url, pool_size=1, writer=False)
    try:
        if engine.dialect.name == "sqlite" and not _sqlite_file(
            Path(engine.url.database or "").absolute(), settings.data_dir.absolute()
        ):
            yield None
            return
        try:
            opened = engine.connect()
        except SQLAlchemyError as error:
            raise _unreachable(error, url) from error
        with opened:
            yield opened
    except SQLAlchemyError as error:
        raise _unreachable(error, url) from error
    finally:
        engine.dispose()


def _sqlite_file(path: Path, data_dir: Path) -> bool:
    """Whether it is there.

    Raises:
        FailedPrecondition: it is something else, or cannot be read.
    """
    if not path.exists():
        if not path.parent.is_dir() and path.parent != data_dir:
            raise _refused(f"there is no folder {path.parent}; make it, or choose another")
        return False
    try:
        with path.open("rb") as file:
            begun = file.read(len(_SQLITE))
    except OSError as error:
        raise _refused(f"{path} cannot be read ({error.strerror}); correct its rights") from error
    if begun not in (b"", _SQLITE):
        raise _refused(
            f"{path} is no SQLite file; restore it (`resight gallery restore`), or choose another"
        )
    if not os.access(path, os.W_OK):
        raise _refused(f"{path} cannot be written; give this user the right to, folder included")
    return True


def _unreachable(error: SQLAlchemyError, url: str) -> ResightError:
    cause = " ".join(str(getattr(error, "orig", None) or error).split())
    where = make_url(url)
    host = where.host or where.query.get("host") or "the database"
    server = f"{host}:{where.port}" if where.port else f"{host}"
    if "password" in cause or "authentication" in cause or "role " in cause:
        what = f"{server} does not let this user in"
        fix = f"correct user and password in {_VARIABLE}"
    elif "does not exist" in cause:
        what = f"there is no database {where.database!r} at {server}"
        fix = f"create it (`createdb {where.database}`) and run `resight db upgrade`"
    else:
        what = f"{server} does not answer"
        fix = f"see that it runs and that {_VARIABLE} names it"
    return Unavailable(
        f"{_FIELD}: {what} ({cause}); {fix}", field=_FIELD, reason="CATALOG_UNAVAILABLE"
    )


def _refused(what: str) -> FailedPrecondition:
    return FailedPrecondition(f"{_FIELD}: {what}", field=_FIELD)
