"""The version of the catalog's schema: read, compared, upgraded."""

from __future__ import annotations

import logging

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from resight.errors import FailedPrecondition
from service.catalog.engine import unavailable

__all__ = [
    "current_revision",
    "head_revision",
    "is_known",
    "prepare",
    "revision_of",
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
    if revision != "head":
        _refuse_newer(revision)
    command.upgrade(_config(connection), revision)


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Bring the database to this code's schema; returns the revisions before and after.

    Raises:
        FailedPrecondition: the database is newer than this code.
        Unavailable: it cannot be reached or written.
    """
    before, head = current_revision(engine), head_revision()
    _refuse_newer(before)
    if before != head:
        try:
            with engine.begin() as connection:
                command.upgrade(_config(connection), "head")
        except SQLAlchemyError as error:
            raise unavailable(error) from error
    return before, head


def prepare(engine: Engine, *, auto_upgrade: bool) -> None:
    """Make sure the schema fits before anything else touches the catalog.

    A SQLite file belongs to this one process, so it is upgraded at once (when ``auto_upgrade``);
    a shared database is upgraded by its operator, with ``resight db upgrade``.

    Raises:
        FailedPrecondition: the schema is newer, or older and not ours to upgrade.
    """
    current, head = current_revision(engine), head_revision()
    if current == head:
        return
    _refuse_newer(current)
    if auto_upgrade and engine.dialect.name == "sqlite":
        upgrade(engine)
        logger.warning("catalog schema upgraded from %s to %s", current or "nothing", head)
        return
    raise FailedPrecondition(
        f"the catalog's schema is {current or 'not there'} and this version needs {head}; run "
        "`resight db upgrade`",
        field="database_url",
        reason="CATALOG_SCHEMA_OLD",
    )


def _refuse_newer(current: str | None) -> None:
    if current is not None and not is_known(current):
        raise FailedPrecondition(
            f"the catalog's schema {current} was made by a newer version of resight than this "
            "one; upgrade resight, or restore the catalog from before the upgrade",
            field="database_url",
            reason="CATALOG_SCHEMA_NEWER",
        )


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "service.catalog:migrations")
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
