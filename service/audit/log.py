"""The one owner of this process's chain.

Whoever has something to record waits for it. While one change of the catalog is under way others
queue up, and the next change takes all of them: one flush to disk serves every call of that moment,
and alone nobody waits for company. Digests are made as part of the change, so a chain in memory is
never ahead of the stored one; after a change that failed (and may have been stored all the same)
the stored head is read first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from sqlalchemy import Connection

from service.audit.chain import Head
from service.audit.checkpoints import Checkpoint, sign
from service.audit.entry import FAILED, Entry
from service.audit.entry_queue import EntryQueue, QueuedEntry, cannot_record
from service.audit.linking import Writer, linked, stored_head
from service.audit.writability import Writability
from service.catalog import audit as statements
from service.domain.ports import Clock
from service.signing import SigningKey
from service.telemetry import (
    AUDIT_CHECKPOINT_AGE,
    AUDIT_ENTRIES,
    AUDIT_UNSIGNED_ENTRIES,
    AUDIT_WRITE_FAILURES,
)

__all__ = ["AuditLog", "LogPolicy"]

logger = logging.getLogger(__name__)

_PAUSES = (0.05, 0.2, 1.0)
_CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """When a checkpoint is due, how many entries may wait, and how long a call waits for its own.

    Attributes:
        checkpoint_entries, checkpoint_seconds: Whichever is reached first.
        max_waiting: Entries.
        wait_seconds: Of one call.
    """

    checkpoint_entries: int
    checkpoint_seconds: float
    max_waiting: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class _Written:
    head: Head
    checkpoint: Checkpoint | None


class AuditLog:
    """Lives on one event loop: ``start``, then ``record`` and ``owe``, then ``close``.

    Args:
        writer: Of the catalog.
        head: The chain as it is stored, its first entry included and signed.
        key: Signs checkpoints.
        clock: Gives the times of entries.
        policy: When checkpoints are due, and how much may wait.
        stored: Told of the head after every change, on the writer's thread.
        signed: Told of every checkpoint; must return at once.

    Attributes:
        writability: Whether changes succeed.
    """

    def __init__(
        self,
        writer: Writer,
        head: Head,
        *,
        key: SigningKey,
        clock: Clock,
        policy: LogPolicy,
        stored: Callable[[Head], None] = lambda _: None,
        signed: Callable[[], None] = lambda: None,
    ) -> None:
        self._writer = writer
        self._head = head
        self._key = key
        self._clock = clock
        self._policy = policy
        self._told = stored
        self._signed = signed
        self._queue = EntryQueue(policy.max_waiting)
        self.writability = Writability()
        self._attempted: set[Head] = set()
        self._failures = 0
        self._signed_until = head.sequence
        self._unsigned_since: float | None = None
        self._closing = False
        self._running: asyncio.Task[None] | None = None

    @property
    def head(self) -> Head:
        """The newest stored entry."""
        return self._head

    def start(self) -> None:
        """Begin to write."""
        self._running = asyncio.create_task(self._run())
        AUDIT_CHECKPOINT_AGE.set_function(self._unsigned_age)

    async def record(self, entry: Entry, *, beginning: bool = False) -> None:
        """Store an entry; returns when it is durable. One that has waited too long is left out,
        unless a change has taken it already: what it says is not so, as the caller is refused.

        Args:
            entry: What to store.
            beginning: Of what does not happen when nobody waits for this any longer: then it is
                left out in the same way, and never follows its own end.

        Raises:
            Unavailable: it is not, or not yet (reason ``AUDIT_UNAVAILABLE``).
        """
        if self._closing or self._queue.is_full:
            AUDIT_WRITE_FAILURES.inc()
            raise cannot_record("too many entries are waiting, or the service is stopping")
        stored = self._queue.add(entry)
        try:
            # What is under way is stored whether the caller stays or not.
            async with asyncio.timeout(self._policy.wait_seconds):
                await asyncio.shield(stored)
        except TimeoutError as error:
            AUDIT_WRITE_FAILURES.inc()
            self.writability.failed(after=self._policy.wait_seconds)
            _left_out(stored)
            raise cannot_record(
                f"it was not stored within {self._policy.wait_seconds:g} s"
            ) from error
        except asyncio.CancelledError:
            if beginning:
                _left_out(stored)
            else:
                stored.add_done_callback(_retrieved)
            raise

    async def settle(self, entry: Entry) -> None:
        """Store an entry that is owed; returns when it is durable, or when it has to wait for a
        catalog that fails or takes long.
        """
        tried = asyncio.get_running_loop().create_future()
        if not self._queue.owe(entry, tried):
            return
        try:
            async with asyncio.timeout(self._policy.wait_seconds):
                await asyncio.shield(tried)
        except TimeoutError:
            logger.warning("the audit takes long: %s is still to be stored", entry.action)

    def owe(self, entry: Entry) -> None:
        """Store an entry as soon as that can be done; what does not fit is counted in the chain."""
        self._queue.owe(entry)

    async def close(self, last: Entry) -> None:
        """Store what waits and a last entry, sign, and stop.

        What cannot be stored within seconds is logged; the chain then ends without a last entry.
        """
        self._closing = True
        self.owe(last)
        if self._running is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._running
            except TimeoutError:
                logger.error(
                    "the audit could not be ended: %d entries are not stored",
                    len(self._queue),
                )
            except Exception:
                logger.exception("the audit ended before its time")
        AUDIT_CHECKPOINT_AGE.set_function(lambda: 0.0)
        AUDIT_UNSIGNED_ENTRIES.set(0)

    async def _run(self) -> None:
        while True:
            if not self._queue and not self._is_due():
                if self._closing and self._signed_until == self._head.sequence:
                    return
                await self._wait()
            await self._write()

    async def _wait(self) -> None:
        self._queue.filled.clear()
        if self._queue or self._closing:
            return
        left = None
        if self._unsigned_since is not None:
            left = self._policy.checkpoint_seconds - (monotonic() - self._unsigned_since)
        try:
            async with asyncio.timeout(None if left is None else max(0.0, left)):
                await self._queue.filled.wait()
        except TimeoutError:
            return

    def _is_due(self) -> bool:
        if self._unsigned_since is None:
            return False
        return monotonic() - self._unsigned_since >= self._policy.checkpoint_seconds

    async def _write(self) -> None:
        batch = self._queue.take()
        now = self._clock.now()
        texts = [(item.entry.columns(), item.entry.body(now)) for item in batch]
        head, until = self._head, self._signed_until
        attempted = self._attempted
        due = self._is_due() or (self._closing and not self._queue)
        if not batch and not due:
            return  # those that waited were given up; an empty change would prove nothing

        def apply(connection: Connection) -> _Written:
            start = stored_head(connection, head, attempted) if attempted else head
            newest, rows = linked(start, texts, now)
            attempted.add(newest)
            if rows:
                statements.add(connection, rows)
            made = None
            unsigned = newest.sequence - until
            if unsigned and (due or unsigned >= self._policy.checkpoint_entries):
                made = sign(self._key, newest, now)
                statements.add_checkpoints(connection, [made])
            return _Written(newest, made)

        try:
            change = self._writer.change(apply, committed=lambda made: self._told(made.head))
            written = await asyncio.wrap_future(change)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self._failed(batch, error)
        else:
            self._stored(batch, written)

    def _stored(self, batch: Sequence[QueuedEntry], written: _Written) -> None:
        if self._failures:
            logger.warning("the audit is written again, after %d failures", self._failures)
        self._head, self._attempted, self._failures = written.head, set(), 0
        self.writability.stored()
        if written.checkpoint is not None:
            self._signed_until, self._unsigned_since = written.checkpoint.sequence, None
            self._signed()
        elif batch and self._unsigned_since is None:
            self._unsigned_since = monotonic()
        AUDIT_ENTRIES.inc(len(batch))
        AUDIT_UNSIGNED_ENTRIES.set(self._head.sequence - self._signed_until)
        for item in batch:
            if item.stored is not None and not item.stored.done():
                item.stored.set_result(None)

    async def _failed(self, batch: Sequence[QueuedEntry], error: Exception) -> None:
        if not self._failures:
            logger.error("the audit cannot be written: %s", error)
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        AUDIT_WRITE_FAILURES.inc(max(1, len(batch)))
        self.writability.failed()
        self._queue.give_back(batch, error)
        self._queue.drop_given_up()
        if not self._queue and not self._is_due():
            # Something is to be tried again, or nobody would know when it works.
            self.owe(Entry(FAILED, facts={"notes": {"entries": len(batch)}}))
        # Calls that come meanwhile are tried at once: the fault may be over.
        self._queue.filled.clear()
        if not self._queue.has_calls:
            try:
                async with asyncio.timeout(pause):
                    await self._queue.filled.wait()
            except TimeoutError:
                return

    def _unsigned_age(self) -> float:
        return 0.0 if self._unsigned_since is None else monotonic() - self._unsigned_since


def _left_out(stored: asyncio.Future[None]) -> None:
    if not stored.cancel():
        _retrieved(stored)


def _retrieved(stored: asyncio.Future[None]) -> None:
    """Nobody waits any longer, so its error is nobody's."""
    if not stored.cancelled():
        stored.exception()
