"""Keys made on the catalog itself, by whoever may write there: how the first one comes to be.

A service may be running on it; it learns of them as of those another replica makes. The audit has
what is done here as it has the calls that do the same; record and effect fail together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

from sqlalchemy import Engine

from resight.errors import NotFound
from service.access.key_text import new_key_id, new_text
from service.access.revocations import Revocations
from service.application.api_keys import MadeKey, make_key
from service.application.call_notes import key_notes
from service.application.data_directory import DataDirectory
from service.audit.operation import operating
from service.call import Noted
from service.catalog import api_keys, schema
from service.catalog.engine import open_engine, writing
from service.clock import SystemClock
from service.domain import names
from service.domain.api_key import ApiKey, KeyRequest, new_key
from service.settings import ServiceSettings

__all__ = ["CREATOR", "create", "every", "revoke"]

CREATOR = "catalog"
_BLOCK = 1000


def create(settings: ServiceSettings, asked: KeyRequest) -> MadeKey:
    """Make a key.

    Raises:
        InvalidArgument: names the field at fault.
        FailedPrecondition, Unavailable: the catalog cannot be used.
    """
    key_id = new_key_id()
    key = new_key(asked, key_id=key_id, creator=CREATOR, now=SystemClock().now())
    text = new_text(key_id)
    made: dict[str, Noted] = {"key_id": key_id, **key_notes(key)}
    with (
        _catalog(settings) as engine,
        operating(settings, "AdminService/CreateApiKey", made, engine=engine) as operation,
        writing(engine) as connection,
    ):
        make_key(connection, key, text)
        operation.end(connection)
    return MadeKey(key, text)


def every(settings: ServiceSettings) -> list[ApiKey]:
    """All keys, newest first.

    Raises:
        FailedPrecondition, Unavailable: the catalog cannot be used.
    """
    found: list[ApiKey] = []
    before = None
    with _catalog(settings) as engine, writing(engine) as connection:
        while block := api_keys.list_keys(connection, before=before, limit=_BLOCK):
            found += [stored.key for stored in block]
            before = block[-1].key_row
    return found


def revoke(settings: ServiceSettings, key_id: str) -> ApiKey:
    """Revoke a key; again changes nothing.

    Raises:
        NotFound: there is no such key.
        FailedPrecondition, Unavailable: the catalog cannot be used.
    """
    wanted = names.printable(key_id, field="key_id", limit=32)
    with (
        _catalog(settings) as engine,
        operating(
            settings, "AdminService/RevokeApiKey", {"key_id": wanted}, engine=engine
        ) as operation,
        writing(engine) as connection,
    ):
        if api_keys.find_key(connection, wanted) is None:
            raise NotFound(
                f"there is no key {wanted!r}; `resight keys list` shows them", field="key_id"
            )
        Revocations(settings.resolved_erasures_dir()).note(wanted)
        stored = api_keys.revoke_key(connection, wanted, now=SystemClock().now())
        assert stored is not None  # noqa: S101 -- found above, in this transaction
        operation.end(connection)
    return stored.key


@contextmanager
def _catalog(settings: ServiceSettings) -> Iterator[Engine]:
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = open_engine(settings.resolved_database_url(), pool_size=1, writer=True)
    try:
        if schema.current_revision(engine) != schema.head_revision():
            alone = engine.dialect.name == "sqlite"
            with closing(DataDirectory(settings.data_dir)) if alone else nullcontext():
                schema.prepare(engine, auto_upgrade=settings.catalog.auto_upgrade)
        yield engine
    finally:
        engine.dispose()
