"""Deletions that milvus-lite would forget.

milvus-lite 3.2 keeps a deletion in memory until it flushes, and drops it when a row of the same id
is inserted: the newer row stands for both. But it reads by partition. So a row that lies in a
file, is deleted, and whose id comes back in another partition, is found again in the first one. A
deletion that was flushed before the id comes back is kept for good.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Tombstones"]

# Ids held; beyond it every insertion is flushed before, once.
MOST = 100_000


class Tombstones:
    """Which ids may have been deleted since the last flush; every id, to begin with: a file may
    have been left by a process before.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._any = True

    def deleted(self, ids: Iterable[str] | None) -> None:
        """These were; None: nobody knows which."""
        if ids is not None:
            self._ids.update(ids)
        if ids is None or len(self._ids) > MOST:
            self._any = True
            self._ids.clear()

    def hide(self, ids: Iterable[str]) -> bool:
        """Whether one of these may be among them, so that a flush must come before it does."""
        return self._any or not self._ids.isdisjoint(ids)

    def flushed(self) -> None:
        """All of them are kept for good."""
        self._ids.clear()
        self._any = False
