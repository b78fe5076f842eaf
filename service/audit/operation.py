"""What a command does on the catalog itself, without a service: recorded in a chain of its own.

A command begins a chain as every process does, and in the same change records that it begins. What
came of it is the next entry, where it can be in the transaction of the change itself: then neither
is there without the other. The chain is signed at both; nothing of it is kept beside the catalog,
where the replica keeps the end of its own.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from resight.errors import ResightError
from service.audit.anchors import AnchorStore, open_anchors
from service.audit.chain import Head
from service.audit.checkpoints import Checkpoint, sign
from service.audit.entry import CHAIN_ENDED, Entry
from service.audit.genesis import begin_chain
from service.audit.linking import linked
from service.call import Noted
from service.catalog import audit as statements
from service.catalog.engine import open_engine, writing
from service.catalog.models import audit_entries
from service.clock import SystemClock
from service.settings import ServiceSettings
from service.signing import KEY_NAME, SigningKey, open_signing_key
from service.snapshot.target_database import sqlite_file
from service.transport.faults import own_name
from service.transport.status import status_of

__all__ = ["KIND", "PREFIX", "Operation", "operating", "record_now"]

logger = logging.getLogger(__name__)

KIND = "catalog"
PREFIX = "command/"
_PROTOCOL = "command"


class Operation:
    """A command that is under way. One that records nothing (``audit.enabled=false``, or a schema
    from before the audit) takes everything and does nothing.

    Args:
        action: What it does: the RPC that does the same, or ``command/…``.
        notes: What its entries say besides.
    """

    def __init__(self, action: str, notes: Mapping[str, Noted]) -> None:
        self.action = action
        self._notes = dict(notes)
        self._request_id = uuid4().hex
        self._key: SigningKey | None = None
        self._began: Checkpoint | None = None
        self._ended: Checkpoint | None = None

    def note(self, **notes: Noted) -> None:
        """Have its end say something; never an image, a vector or a secret."""
        self._notes.update(notes)

    @property
    def is_recorded(self) -> bool:
        """Whether its beginning is."""
        return self._began is not None

    @property
    def is_ended(self) -> bool:
        """Whether its end was given to a transaction."""
        return self._ended is not None

    def begin(self, connection: Connection, key: SigningKey) -> None:
        """Begin the chain."""
        self._key = key
        self._began = begin_chain(
            connection,
            replica=f"resight ({self.action}) on {socket.gethostname()}",
            key=key,
            own=None,
            policy={},  # that of the service is not known here
            now=SystemClock().now(),
            after=[self._entry("began")],
        )

    def end(
        self, connection: Connection, outcome: str = "OK", *, reason: str = "", named: str = ""
    ) -> None:
        """Record what came of it, in the transaction of the change.

        Args:
            connection: Of the change.
            outcome: As of a call.
            reason: Code of the error; empty for none.
            named: The field at fault where that is a name of ours.
        """
        if self._key is None or self._began is None:
            return
        now = SystemClock().now()
        began = Head(self._began.chain_id, self._began.sequence, self._began.digest)
        ended = self._entry("ended", outcome=outcome, reason=reason, field=named)
        entries = [ended, Entry(CHAIN_ENDED)]
        head, rows = linked(began, [(each.columns(), each.body(now)) for each in entries], now)
        statements.add(connection, rows)
        self._ended = sign(self._key, head, now)
        statements.add_checkpoints(connection, [self._ended])

    def copy(self, store: AnchorStore) -> list[Checkpoint]:
        """Copy what was signed outside."""
        signed = [made for made in (self._began, self._ended) if made is not None]
        for made in signed:
            store.put(made, "" if self._key is None else self._key.public_pem)
        return signed

    def _entry(self, event: str, **told: str) -> Entry:
        facts: dict[str, Any] = {
            "event": event,
            "request_id": self._request_id,
            "protocol": _PROTOCOL,
            "peer": socket.gethostname(),
            "purpose": "",
            "principal_kind": KIND,
            "notes": dict(self._notes),
        }
        facts |= {name: value for name, value in told.items() if value}
        if sudo := os.environ.get("SUDO_USER", ""):
            facts["sudo_user"] = sudo[:64]
        return Entry(action=self.action, principal=f"operator:{_user()}", facts=facts)


@contextmanager
def operating(
    settings: ServiceSettings,
    action: str,
    notes: Mapping[str, Noted] = MappingProxyType({}),
    *,
    engine: Engine | None = None,
) -> Iterator[Operation]:
    """Record that a command begins, then what came of it; it does not begin if that fails.

    Args:
        settings: Those of the catalog's service.
        action: The RPC that does the same, or ``command/…``.
        notes: What both entries say.
        engine: A writing one of the catalog; one is opened when None.

    Raises:
        InvalidArgument: there is no signing key and none can be made.
        Unavailable: the catalog cannot be written.
    """
    operation = Operation(action, notes)
    url = settings.resolved_database_url()
    file = sqlite_file(url)
    nowhere = engine is None and file is not None and not file.is_file()  # nor is it made here
    if not settings.audit.enabled or nowhere:
        yield operation
        return
    own = engine or open_engine(url, pool_size=1, writer=True)
    try:
        _begin(settings, operation, own)
        try:
            yield operation
        except BaseException as error:
            _fail(operation, own, error)
            raise
        if operation.is_recorded and not operation.is_ended:
            with writing(own) as connection:
                operation.end(connection)
        _anchor(settings, operation, own)
    finally:
        if engine is None:
            own.dispose()


def record_now(
    connection: Connection, settings: ServiceSettings, action: str, notes: Mapping[str, Noted]
) -> bool:
    """Record a command in the transaction of what it changes, if a signing key is there: where it
    runs may be no place of the service, and a key made there would be nobody's.

    Returns:
        Whether it is recorded.

    Raises:
        InvalidArgument: the signing key cannot be used.
    """
    section = settings.audit
    if section.signing_key_file is None and not (settings.data_dir / KEY_NAME).exists():
        return False
    if not section.enabled or not _has_audit(connection):
        return False
    operation = Operation(action, notes)
    operation.begin(connection, open_signing_key(section.signing_key_file, settings.data_dir))
    operation.end(connection)
    return True


def _begin(settings: ServiceSettings, operation: Operation, engine: Engine) -> None:
    with writing(engine) as connection:
        if not _has_audit(connection):
            return
        key = open_signing_key(settings.audit.signing_key_file, settings.data_dir)
        operation.begin(connection, key)


def _fail(operation: Operation, engine: Engine, error: BaseException) -> None:
    """Record that it failed, as far as that can be done; otherwise its beginning tells."""
    if not operation.is_recorded:
        return
    outcome = reason = "CANCELLED"
    named = ""
    if isinstance(error, Exception):
        found = error if isinstance(error, ResightError) else ResightError("")
        outcome, reason = status_of(found).grpc.name, found.reason
        named = own_name(found.field)
    try:
        with engine.begin() as connection:
            operation.end(connection, outcome, reason=reason, named=named)
    except SQLAlchemyError as fault:
        logger.warning("the audit does not say how the command ended: %s", fault)


def _anchor(settings: ServiceSettings, operation: Operation, engine: Engine) -> None:
    """Copy what was signed; a service does it later when this fails."""
    url = settings.audit.anchor_url
    if url is None or not operation.is_recorded:
        return
    try:
        copied = operation.copy(open_anchors(url))
        with engine.begin() as connection:
            statements.anchored(connection, copied, SystemClock().now())
    except Exception as error:  # whatever a driver raises
        logger.warning("audit.anchor_url: the service copies the checkpoint later: %s", error)


def _has_audit(connection: Connection) -> bool:
    return inspect(connection).has_table(audit_entries.name)


def _user() -> str:
    """Who the system says that this process is; several people may be root."""
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # as in a container
        return str(number)
