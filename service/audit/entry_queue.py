"""Entries that wait for the next change of the chain.

Some are *owed*: what they say has happened already and cannot be taken back. They stay until they
are stored. Others fail, and with them the call that waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from resight.errors import Unavailable
from service.audit.entry import Entry
from service.telemetry import AUDIT_WRITE_FAILURES

__all__ = ["MAX_BATCH", "EntryQueue", "QueuedEntry", "cannot_record"]

MAX_BATCH = 512


@dataclass(slots=True)
class QueuedEntry:
    """An entry, and what somebody who waits for it is told by."""

    entry: Entry
    stored: asyncio.Future[None] | None = None
    is_owed: bool = False

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits any longer, and it need not be stored."""
        return not self.is_owed and self.stored is not None and self.stored.cancelled()


class EntryQueue:
    """Lives on one event loop.

    Args:
        most: Entries that may wait; as many owed ones.

    Attributes:
        filled: Set when an entry is added; cleared by whoever takes them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_calls: deque[QueuedEntry] = deque()
        self._owed: deque[QueuedEntry] = deque()
        self._lost = 0
        self.filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._of_calls) + len(self._owed)

    @property
    def is_full(self) -> bool:
        """Whether an entry that is not owed has no place."""
        return len(self) >= self._most

    @property
    def has_calls(self) -> bool:
        """Whether a call waits for an entry that is not owed."""
        return bool(self._of_calls)

    def add(self, entry: Entry) -> asyncio.Future[None]:
        """Put one in the queue; what is returned resolves when it is stored, or could not be. Who
        cancels it leaves the entry out, unless it was taken.
        """
        stored = asyncio.get_running_loop().create_future()
        self._of_calls.append(QueuedEntry(entry, stored))
        self.filled.set()
        return stored

    def owe(self, entry: Entry, tried: asyncio.Future[None] | None = None) -> bool:
        """Put an owed one in the queue; False when it does not fit, which is counted and stored in
        its stead. ``tried`` resolves when it is stored or when a first change has failed.
        """
        if len(self._owed) >= self._most:
            self._lost += 1
            AUDIT_WRITE_FAILURES.inc()
            return False
        self._owed.append(QueuedEntry(entry, tried, is_owed=True))
        self.filled.set()
        return True

    def take(self) -> list[QueuedEntry]:
        """What the next change stores: owed entries first, as they are older."""
        batch: list[QueuedEntry] = []
        if self._lost:
            lost = Entry("audit/lost", facts={"notes": {"entries": self._lost}})
            batch.append(QueuedEntry(lost, is_owed=True))
            self._lost = 0
        for source in (self._owed, self._of_calls):
            while source and len(batch) < MAX_BATCH:
                item = source.popleft()
                if not item.is_given_up:
                    batch.append(item)
        return batch

    def drop_given_up(self) -> None:
        """Count those no longer that nobody waits for."""
        self._of_calls = deque(item for item in self._of_calls if not item.is_given_up)

    def give_back(self, batch: Sequence[QueuedEntry], error: Exception) -> None:
        """After a change that failed: owed entries wait on, the calls of others are told."""
        self._owed.extendleft(reversed([item for item in batch if item.is_owed]))
        for item in batch:
            if item.stored is None or item.stored.done():
                continue
            if item.is_owed:
                item.stored.set_result(None)
            else:
                item.stored.set_exception(cannot_record("the catalog does not take it", str(error)))


def cannot_record(why: str, detail: str = "") -> Unavailable:
    """What a call is told whose entry is not stored."""
    return Unavailable(
        f"the audit cannot record this call, so it is not answered ({why}); try again later",
        field="audit",
        reason="AUDIT_UNAVAILABLE",
        detail=detail,
    )
