"""The audit of one process: opened before the first call, closed after the last."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Self

from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from service.application.repeating import Repeating
from service.audit.anchors import Anchoring, open_anchors
from service.audit.chain import Head
from service.audit.denials import Denials
from service.audit.entry import CHAIN_ENDED, Entry
from service.audit.genesis import begin_chain
from service.audit.head_file import HEAD_FILE, HeadFile
from service.audit.linking import Writer
from service.audit.log import AuditLog, LogPolicy
from service.audit.pruning import Pruning
from service.audit.recorder import CallRecorder
from service.catalog.engine import open_engine
from service.catalog.store import Catalog
from service.catalog.writer import CatalogWriter
from service.domain.ports import Clock
from service.settings import ServiceSettings
from service.signing import SigningKey, open_signing_key

__all__ = ["Audit"]

_PRUNE_SECONDS = 3600.0


class Audit:
    """``await Audit.open(…)``, then ``recorder`` stands at the gate, then ``await close()``.

    Attributes:
        recorder: Records calls.
        log: The chain.
        key: Signs.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        catalog: Catalog,
        clock: Clock,
        *,
        writer: _Shared | _Own,
        key: SigningKey,
        head: Head,
        head_file: HeadFile,
    ) -> None:
        section = settings.audit
        self.key = key
        self._writer = writer
        self._head_file = head_file
        self._anchoring: Anchoring | None = None
        if section.anchor_url is not None:
            store = open_anchors(section.anchor_url)
            self._anchoring = Anchoring(store, catalog, writer.writer, clock)
        signed = (lambda: None) if self._anchoring is None else self._anchoring.ring
        self.log = AuditLog(
            writer.writer,
            head,
            key=key,
            clock=clock,
            policy=LogPolicy(
                checkpoint_entries=section.checkpoint_entries,
                checkpoint_seconds=section.checkpoint_seconds,
                max_waiting=section.max_waiting,
                wait_seconds=section.wait_seconds,
            ),
            stored=head_file.write,
            signed=signed,
        )
        self._denials = Denials(self.log.owe, clock)
        self.recorder = CallRecorder(self.log, self._denials)
        self._pruning: Pruning | None = None
        self._repeating: Repeating | None = None
        if section.keep_days is not None:
            self._pruning = Pruning(
                catalog,
                writer.writer,
                self.log,
                key=key,
                clock=clock,
                keep=timedelta(days=section.keep_days),
                signed=signed,
            )

    @classmethod
    async def open(
        cls, settings: ServiceSettings, catalog: Catalog, clock: Clock, *, replica: str
    ) -> Self:
        """Begin a chain.

        Args:
            settings: All of them: the first entry says which policy is in force.
            catalog: Where the audit is kept.
            clock: Gives times.
            replica: Name of this process among others.

        Raises:
            InvalidArgument: the signing key or the place of anchors cannot be used.
            Unavailable: the catalog cannot be written.
        """
        key = open_signing_key(settings.audit.signing_key_file, settings.data_dir)
        head_file = HeadFile(settings.data_dir / HEAD_FILE)
        shared = make_url(settings.resolved_database_url()).get_backend_name() == "postgresql"
        writer = _Own(settings, clock) if shared else _Shared(catalog)

        def begin(connection: Connection) -> Head:
            signed = begin_chain(
                connection,
                replica=replica,
                key=key,
                own=head_file.read(),
                policy=policy_of(settings),
                now=clock.now(),
            )
            return Head(signed.chain_id, signed.sequence, signed.digest)

        try:
            head = await asyncio.wrap_future(writer.writer.change(begin))
            audit = cls(
                settings, catalog, clock, writer=writer, key=key, head=head, head_file=head_file
            )
        except BaseException:
            writer.close()
            raise
        head_file.write(head)
        audit._start()
        return audit

    def _start(self) -> None:
        self.log.start()
        if self._anchoring is not None:
            self._anchoring.start()
        if self._pruning is not None:
            self._repeating = Repeating(
                "pruning the audit", self._pruning.work, interval=_PRUNE_SECONDS
            )

    def own(self, what: str, gallery: str, **notes: str | int) -> None:
        """Record what the service did by itself."""
        facts = {"event": "call", "outcome": "OK", "notes": notes}
        self.log.owe(Entry(f"service/{what}", "service", gallery, facts))

    async def close(self) -> None:
        """Store what waits, sign, copy the last checkpoint, stop."""
        if self._repeating is not None:
            await self._repeating.close()
        self._denials.flush()
        await self.log.close(Entry(CHAIN_ENDED))
        if self._anchoring is not None:
            await self._anchoring.close()
        await asyncio.to_thread(self._writer.close)
        self._head_file.close()


class _Shared:
    """SQLite has one writer: the audit's changes share its transactions."""

    def __init__(self, catalog: Catalog) -> None:
        self.writer: Writer = catalog.writer

    def close(self) -> None:
        """It is not ours."""


class _Own:
    """PostgreSQL has many: no search waits for the locks of an ingest."""

    def __init__(self, settings: ServiceSettings, clock: Clock) -> None:
        self._engine = open_engine(settings.resolved_database_url(), pool_size=1, writer=True)
        self._writer = CatalogWriter(
            self._engine,
            clock=clock,
            inserted=lambda _: None,
            max_group=settings.catalog.max_group,
            max_pending=settings.catalog.max_pending_writes,
        )
        self.writer: Writer = self._writer

    def close(self) -> None:
        """Finish what was submitted, then close the connection. Blocking."""
        self._writer.close()
        self._engine.dispose()


def policy_of(settings: ServiceSettings) -> dict[str, Any]:
    """What governs the data of this process, for the first entry of its chain."""
    audit, governance = settings.audit, settings.governance
    return {
        "retention_days": _number(settings.retention.days),
        "images_stored": settings.privacy.store_images,
        "require_purpose": governance.require_purpose,
        "purposes": list(governance.purposes),
        "record_matches": audit.record_matches,
        "keep_days": _number(audit.keep_days),
        "checkpoint_entries": audit.checkpoint_entries,
        "checkpoint_seconds": _number(audit.checkpoint_seconds),
    }


def _number(value: float | None) -> int | str | None:
    """Whole numbers as such, others as text: no floats in what is hashed."""
    if value is None:
        return None
    return int(value) if value == int(value) else repr(value)
