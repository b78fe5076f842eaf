"""Entries that are older than they may be kept, removed so that what stays can still be verified.

Of each chain the oldest part goes, after its digests were computed anew and found right. In its
place stays a signed ``base``, from which verification starts; without the key nobody can make one,
so an entry that is missing for any other reason is noticed. That it was done is an entry itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import ResightError
from service.audit.chain import Head, beginning, following
from service.audit.checkpoints import BASE, Checkpoint, sign
from service.audit.entry import PRUNED, Entry
from service.audit.linking import Writer
from service.audit.log import AuditLog
from service.catalog import audit as statements
from service.catalog.store import Catalog
from service.domain.ports import Clock
from service.signing import SigningKey

__all__ = ["Pruning"]

logger = logging.getLogger(__name__)

# Entries removed in one transaction: calls wait for no longer.
BLOCK = 5000


class Pruning:
    """``work`` is called from time to time.

    Args:
        catalog: Where chains are read.
        writer: Where they are cut.
        log: This process's own chain.
        key: Signs bases.
        clock: Tells what is too old.
        keep: How long entries are kept.
        signed: Told of every base.
    """

    def __init__(
        self,
        catalog: Catalog,
        writer: Writer,
        log: AuditLog,
        *,
        key: SigningKey,
        clock: Clock,
        keep: timedelta,
        signed: Callable[[], None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._writer = writer
        self._log = log
        self._key = key
        self._clock = clock
        self._keep = keep
        self._signed = signed

    async def work(self) -> None:
        """As ``prune``."""
        await self.prune()

    async def prune(self) -> int:
        """Remove what is too old; returns entries removed.

        Raises:
            Unavailable: the catalog cannot be used.
        """
        removed = 0
        for chain_id in await self._catalog.read(statements.chains):
            try:
                removed += await self._cut(chain_id)
            except ResightError as error:
                logger.error("audit chain %s is not pruned: %s", chain_id, error)
        return removed

    async def _cut(self, chain_id: UUID) -> int:
        removed = 0
        limit = self._clock.now() - self._keep
        while True:
            end = await self._catalog.read(self._verified, chain_id, limit)
            if end is None:
                break
            base = sign(self._key, end, self._clock.now(), BASE)
            if not removed:
                notes = {"chain": chain_id.hex, "before": limit.isoformat()}
                await self._log.record(Entry(PRUNED, facts={"notes": notes}))
            apply = partial(_replace, base=base)
            removed += await asyncio.wrap_future(self._writer.change(apply))
            self._signed()
        if removed:
            logger.info("audit chain %s: removed %d entries too old to keep", chain_id, removed)
        return removed

    def _verified(self, connection: Connection, chain_id: UUID, limit: datetime) -> Head | None:
        """Where the next block to go ends; None when nothing is too old, or it is damaged."""
        oldest = statements.older_than(connection, chain_id, limit)
        newest = statements.head_of(connection, chain_id)
        if not oldest or newest is None:
            return None
        head = beginning(chain_id)
        for base in statements.bases(connection, chain_id):
            if base.sequence > head.sequence:
                head = Head(chain_id, base.sequence, base.digest)
        until = min(oldest, head.sequence + BLOCK)
        # The end of the chain that is being written stays: it is what the next entry follows.
        if chain_id == self._log.head.chain_id:
            until = min(until, newest.sequence - 1)
        if until <= head.sequence:
            return None
        for entry in statements.all_entries(connection, chain_id, until):
            expected = following(head, entry.body)
            if (entry.sequence, entry.digest) != (expected.sequence, expected.digest):
                logger.error(
                    "audit chain %s is damaged at entry %d, so it is not pruned",
                    chain_id,
                    expected.sequence,
                )
                return None
            head = expected
        return head


def _replace(connection: Connection, base: Checkpoint) -> int:
    statements.add_checkpoints(connection, [base])
    return statements.remove_until(connection, base)
