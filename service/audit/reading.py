"""The audit as the command line reads it: of a running service, or on a catalog.

A page is at most a thousand entries, so nothing here holds a whole audit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from resight.client.connection import Connection as Channel
from resight.client.faults import translated
from resight.errors import FailedPrecondition
from resight.v1 import admin_service_pb2 as messages
from service.audit.chain import Head
from service.audit.chain_check import Fault
from service.audit.checkpoints import Checkpoint
from service.audit.verifying import Verdict, verify
from service.catalog import audit as statements
from service.catalog import schema
from service.catalog.audit import Selection
from service.catalog.engine import open_engine, unavailable
from service.settings import ServiceSettings
from service.signing import PublicKeys
from service.snapshot.target_database import sqlite_file

__all__ = ["CatalogAudit", "ReadEntry", "ServiceAudit", "Source", "opened_catalog"]

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class ReadEntry:
    """An entry; ``said`` is its body, read."""

    chain_id: str
    sequence: int
    record_time: datetime
    principal: str
    action: str
    gallery: str
    body: str
    digest: str
    said: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Where an audit is read."""

    def entries(self, wanted: Selection) -> Iterator[ReadEntry]:
        """Entries by time, oldest first."""
        ...

    def verdict(self) -> Verdict:
        """The verification, with the keys found there."""
        ...

    def public_keys(self) -> dict[str, str]:
        """Public keys, PEM, by signer."""
        ...


class CatalogAudit:
    """On the catalog itself.

    Args:
        connection: Sees one state throughout.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def entries(self, wanted: Selection) -> Iterator[ReadEntry]:
        """Entries by time, oldest first."""
        after = None
        while True:
            page = statements.listed(self.connection, wanted, after=after, limit=_PAGE)
            for entry in page:
                yield ReadEntry(
                    entry.chain_id.hex,
                    entry.sequence,
                    entry.record_time,
                    entry.principal,
                    entry.action,
                    entry.gallery,
                    entry.body,
                    entry.digest.hex(),
                    _said(entry.body),
                )
            if len(page) < _PAGE:
                return
            last = page[-1]
            after = (last.record_time, last.chain_id, last.sequence)

    def verdict(self) -> Verdict:
        """With the keys that the catalog holds."""
        return self.checked()

    def checked(
        self,
        keys: PublicKeys | None = None,
        anchors: Sequence[Checkpoint] = (),
        heads: Sequence[Head] = (),
    ) -> Verdict:
        """With keys, anchors and ends that were brought along."""
        return verify(self.connection, keys=keys, anchors=anchors, heads=heads)

    def public_keys(self) -> dict[str, str]:
        """Public keys, PEM, by signer."""
        return statements.signers(self.connection)


class ServiceAudit:
    """Of a running service.

    Args:
        channel: To it.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def entries(self, wanted: Selection) -> Iterator[ReadEntry]:
        """Entries by time, oldest first."""
        request = messages.ListAuditEntriesRequest(
            gallery=wanted.gallery,
            principal=wanted.principal,
            action=wanted.action,
            page_size=_PAGE,
        )
        for name in ("start_time", "end_time"):
            value: datetime | None = getattr(wanted, name)
            if value is not None:
                time = Timestamp()
                time.FromDatetime(value)
                getattr(request, name).CopyFrom(time)
        while True:
            with translated():
                page = self.channel.admin.ListAuditEntries(request)
            for entry in page.entries:
                # A service from before there was this filter gives all.
                if wanted.action and entry.action != wanted.action:
                    continue
                yield ReadEntry(
                    entry.chain_id,
                    entry.sequence,
                    entry.record_time.ToDatetime(UTC),
                    entry.principal,
                    entry.action,
                    entry.gallery,
                    entry.body,
                    entry.digest.hex(),
                    _said(entry.body),
                )
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def verdict(self) -> Verdict:
        """What the service says of itself."""
        return self._verified()[0]

    def public_keys(self) -> dict[str, str]:
        """Public keys, PEM, by signer."""
        return self._verified()[1]

    def _verified(self) -> tuple[Verdict, dict[str, str]]:
        found = self.channel.admin.VerifyAudit(messages.VerifyAuditRequest())
        verdict = Verdict(
            chains=found.chains,
            entries=found.entries,
            checkpoints=found.checkpoints,
            unsigned_entries=found.unsigned_entries,
            signers=[each.signer for each in found.signers],
            faults=[
                Fault(fault.chain_id, fault.sequence, fault.description) for fault in found.faults
            ],
        )
        return verdict, {each.signer: each.public_key for each in found.signers}


@contextmanager
def opened_catalog(settings: ServiceSettings) -> Iterator[Connection]:
    """A reading connection to the catalog; a service may be running on it. Nothing is made.

    Raises:
        FailedPrecondition: there is no catalog, or its schema is not this version's.
        Unavailable: the database does not answer.
    """
    url = settings.resolved_database_url()
    path = sqlite_file(url)
    if path is not None and not path.is_file():
        raise FailedPrecondition(
            f"there is no catalog at {path}; name the service's data directory with --data, or "
            "its database with RESIGHT_DATABASE_URL",
            field="data_dir",
            reason="CATALOG_MISSING",
        )
    engine = open_engine(url, pool_size=1, writer=False)
    try:
        with engine.connect() as connection:
            found = schema.revision_of(connection)
            if found != schema.head_revision():
                raise FailedPrecondition(
                    f"the catalog has schema {found or 'none'}, this version reads "
                    f"{schema.head_revision()}; run `resight db upgrade`",
                    field="database_url",
                    reason="SCHEMA_MISMATCH",
                )
            yield connection
    except SQLAlchemyError as error:
        raise unavailable(error) from error
    finally:
        engine.dispose()


def _said(body: str) -> dict[str, Any]:
    """What a body says; nothing when it was altered, which verification tells."""
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
