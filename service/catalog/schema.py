"""The version of the catalog's schema: read, compared, upgraded.

Older code runs on a newer schema when that says so (``compatibility``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from resight.errors import FailedPrecondition
from service.catalog import compatibility
from service.catalog.compatibility import Runner
from service.catalog.engine import unavailable

__all__ = [
    "check",
    "current_revision",
    "head_revision",
    "is_known",
    "prepare",
    "revision_of",
    "too_old",
    "upgrade",
    "upgrade_to",
]

logger = logging.getLogger(__name__)


def head_revision() -> str:
    """The schema this code works with."""
    head = _script().get_current_head()
    if head is None:
        raise FailedPrecondition("the installation lacks its migrations; install resight again")
    return head


def current_revision(engine: Engine) -> str | None:
    """The schema the database has; None when it is empty."""
    try:
        with engine.connect() as connection:
            return revision_of(connection)
    except SQLAlchemyError as error:
        raise unavailable(error) from error


def revision_of(connection: Connection) -> str | None:
    """The schema that a connection finds; None when there is none."""
    return MigrationContext.configure(connection).get_current_revision()


def is_known(revision: str) -> bool:
    """Whether this code has the migrations up to a revision."""
    return any(script.revision == revision for script in _script().walk_revisions())


def upgrade_to(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to a revision, in the connection's transaction.

    Raises:
        FailedPrecondition: this code does not know the revision.
    """
    if revision != "head" and not is_known(revision):
        raise _newer(revision, None)
    command.upgrade(_config(connection), revision)
    compatibility.mark(connection, compatibility.lowest_code(_script(), revision))


def upgrade(
    engine: Engine,
    *,
    expire_seconds: float = 10.0,
    upgraded: Callable[[Connection, str | None, str], None] = lambda *_: None,
) -> tuple[str | None, str]:
    """Bring the database to this code's schema, beside replicas that can live with it.

    Args:
        engine: Of the catalog.
        expire_seconds: After which a silent replica is dead (``replicas.expire_seconds``).
        upgraded: Told of an upgrade in its transaction: the revisions before and after.

    Returns:
        The revisions before and after; the same when there was nothing to do, as when the schema
        is newer and this code may run on it.

    Raises:
        FailedPrecondition: the database is newer than this code and says that this code must not
            run on it, or a replica lives that could not go on.
        Unavailable: it cannot be reached or written, or is too busy to be changed.
    """
    try:
        with engine.begin() as connection:
            compatibility.hold(connection)
            before = revision_of(connection)
            if before is not None and not is_known(before):
                _check_newer(connection, before)
                return before, before
            if before is not None and before != head_revision():
                _refuse_runners(connection, before, expire_seconds=expire_seconds)
            upgrade_to(connection)
            if before != head_revision():
                upgraded(connection, before, head_revision())
            return before, head_revision()
    except SQLAlchemyError as error:
        raise unavailable(error) from error


def check(connection: Connection) -> str:
    """Make sure that this code may run on the schema, which stays until the transaction's end.

    Returns:
        The revision that this code was made for.

    Raises:
        FailedPrecondition: it may not, any longer.
    """
    compatibility.keep(connection)
    current = revision_of(connection)
    if current is not None and not is_known(current):
        _check_newer(connection, current)
    return head_revision()


def prepare(engine: Engine, *, auto_upgrade: bool) -> None:
    """Make sure the schema fits before anything else touches the catalog.

    A SQLite file belongs to this one process, so it is upgraded at once (when ``auto_upgrade``);
    a shared database is upgraded by its operator, with ``resight db upgrade``.

    Raises:
        FailedPrecondition: the schema is newer and this code must not run on it, or older and not
            ours to upgrade.
    """
    current, head = current_revision(engine), head_revision()
    if current == head:
        return
    if current is not None and not is_known(current):
        try:
            with engine.connect() as connection:
                _check_newer(connection, current)
        except SQLAlchemyError as error:
            raise unavailable(error) from error
        logger.warning(
            "catalog schema %s is newer than this version's %s, which may run on it; it is time to "
            "upgrade resight",
            current,
            head,
        )
        return
    if auto_upgrade and engine.dialect.name == "sqlite":
        upgrade(engine)
        logger.warning("catalog schema upgraded from %s to %s", current or "nothing", head)
        return
    raise too_old(current)


def too_old(current: str | None) -> FailedPrecondition:
    """What a start says of a schema that its operator has to upgrade."""
    return FailedPrecondition(
        f"database_url: the catalog's schema is {current or 'not there'} and this version needs "
        f"{head_revision()}; run `resight db upgrade`",
        field="database_url",
        reason="CATALOG_SCHEMA_OLD",
    )


def _check_newer(connection: Connection, current: str) -> None:
    """Pass when this code may run on a schema that it does not know."""
    lowest = compatibility.marked(connection)
    if lowest is None or not is_known(lowest):
        raise _newer(current, lowest)


def _newer(current: str, lowest: str | None) -> FailedPrecondition:
    needed = "" if lowest is None else f", needs code of schema {lowest} or later"
    return FailedPrecondition(
        f"database_url: the catalog's schema {current} was made by a newer version of "
        f"resight{needed}, and this version is of {head_revision()}: run the newer "
        "resight again, or restore the snapshot from before the upgrade into an empty database "
        "(`resight gallery restore`)",
        field="database_url",
        reason="CATALOG_SCHEMA_NEWER",
    )


def _refuse_runners(connection: Connection, before: str, *, expire_seconds: float) -> None:
    scripts = _script()
    lowest = compatibility.lowest_code(scripts, "head")
    fit = {script.revision for script in scripts.walk_revisions(lowest, "head")}
    found = compatibility.runners(connection, before, expire_seconds=expire_seconds)
    # A revision that this code does not know is newer than it.
    unfit = [each for each in found if is_known(each.revision) and each.revision not in fit]
    if unfit:
        raise FailedPrecondition(
            f"schema {head_revision()} needs code of schema {lowest} or later, and these replicas "
            f"still run: {_told(unfit)}. Stop them and run `resight db upgrade` again (one that "
            f"was killed counts for {expire_seconds:g} s more); nothing was changed",
            field="database_url",
            reason="REPLICAS_TOO_OLD",
        )


def _told(found: list[Runner]) -> str:
    return ", ".join(f"{each.name} (of schema {each.revision})" for each in found)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "service.catalog:migrations")
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
