"""Ids of rows as pairs of uint64, and the rows that have given ids."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

__all__ = ["IdSet", "id_halves", "uuids"]

# Up to this many ids one comparison each beats a sorted search.
FEW = 4

_HALF = (1 << 64) - 1


def id_halves(ids: Sequence[UUID]) -> NDArray[np.uint64]:
    """UUIDs as (N, 2) uint64, upper and lower half: 16 bytes each, and they compare as numbers."""
    flat = [half for value in ids for half in (value.int >> 64, value.int & _HALF)]
    return np.array(flat, dtype=np.uint64).reshape(-1, 2)


def uuids(halves: NDArray[np.uint64]) -> list[UUID]:
    """The UUIDs of (N, 2) uint64 halves."""
    return [UUID(int=high << 64 | low) for high, low in halves.tolist()]


class IdSet:
    """Ids looked for in many segments.

    Args:
        halves: (M, 2) uint64.
    """

    def __init__(self, halves: NDArray[np.uint64]) -> None:
        self._pairs = set(map(tuple, halves.tolist()))
        self._low = np.unique(halves[:, 1])

    def __len__(self) -> int:
        """Distinct ids."""
        return len(self._pairs)

    def rows(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The rows of (N, 2) ids that are in the set, ascending."""
        rows: NDArray[np.int64]
        low = ids[:, 1]
        if len(self._low) <= FEW:
            found = np.zeros(len(ids), dtype=bool)
            for value in self._low:
                found |= low == value
        else:
            place = np.searchsorted(self._low, low)
            place[place == len(self._low)] = 0
            found = self._low[place] == low
        rows = np.flatnonzero(found)
        # Clients may choose ids, so two may share a half.
        same = [tuple(pair) in self._pairs for pair in ids[rows].tolist()]
        rows = rows[np.array(same, dtype=bool)]
        return rows
