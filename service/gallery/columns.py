"""Rows of an index as growing columns, read through immutable snapshots.

One thread writes. A snapshot is a set of views on the rows there were; later rows are written
behind them and removals make a new tombstone list, so a reader needs no lock and sees one state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import IndexRows

__all__ = ["Columns", "Snapshot", "id_halves"]

MIN_CAPACITY = 1024
# Tombstones are tolerated up to this share of the rows before the columns are written anew.
MAX_DEAD_SHARE = 0.2

_HALF = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the columns held at one moment.

    Args:
        ids: (N, 2) uint64 halves of UUIDs.
        cameras: (N,) int32 codes.
        times: (N,) int64 microseconds.
        vectors: (N, D) float32, C-contiguous.
        dead: Removed rows, int64, ascending.
    """

    ids: NDArray[np.uint64]
    cameras: NDArray[np.int32]
    times: NDArray[np.int64]
    vectors: NDArray[np.float32]
    dead: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Rows, tombstones included."""
        return len(self.times)

    @property
    def living(self) -> int:
        """Rows a search can return."""
        return len(self.times) - len(self.dead)


class Columns:
    """The columns of one index; all methods but ``snapshot`` belong to one thread."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._arrays = self._allocate(0)
        self.snapshot = self._view(0, np.empty(0, np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in use; capacity beyond them is not touched, so not resident."""
        snapshot = self.snapshot
        return sum(
            column.nbytes
            for column in (snapshot.ids, snapshot.cameras, snapshot.times, snapshot.vectors)
        )

    def reserve(self, rows: int) -> None:
        """Make room for this many rows at once, so that loading never copies."""
        if rows > len(self._arrays.times):
            self._move(rows, slice(0, self.snapshot.rows))
            self.snapshot = self._view(self.snapshot.rows, self.snapshot.dead)

    def append(self, added: IndexRows) -> None:
        """Write rows behind the last one, then show them.

        Raises:
            ValueError: the columns of ``added`` do not fit each other or the dimension.
        """
        old, new = self.snapshot.rows, len(added.times)
        if added.vectors.shape != (new, self._dimension) or len(added.ids) != new:
            raise ValueError(
                f"vectors {added.vectors.shape} and ids {added.ids.shape} do not fit {new} rows of "
                f"dimension {self._dimension}"
            )
        if old + new > len(self._arrays.times):
            self._move(max(MIN_CAPACITY, 2 * old, old + new), slice(0, old))
        arrays = self._arrays
        arrays.ids[old : old + new] = added.ids
        arrays.cameras[old : old + new] = added.cameras
        arrays.times[old : old + new] = added.times
        arrays.vectors[old : old + new] = added.vectors
        self.snapshot = self._view(old + new, self.snapshot.dead)

    def remove(self, ids: Sequence[UUID]) -> int:
        """Bury the rows with these ids; returns how many there were."""
        snapshot = self.snapshot
        found = np.zeros(snapshot.rows, dtype=bool)
        for high, low in id_halves(ids).tolist():
            found |= (snapshot.ids[:, 1] == low) & (snapshot.ids[:, 0] == high)
        found[snapshot.dead] = False
        removed = np.flatnonzero(found)
        if not len(removed):
            return 0
        dead = np.union1d(snapshot.dead, removed)
        if len(dead) > MAX_DEAD_SHARE * snapshot.rows:
            living = np.ones(snapshot.rows, dtype=bool)
            living[dead] = False
            count = int(living.sum())
            self._move(max(MIN_CAPACITY, count), np.flatnonzero(living))
            self.snapshot = self._view(count, np.empty(0, np.int64))
        else:
            self.snapshot = self._view(snapshot.rows, dead)
        return len(removed)

    def _move(self, capacity: int, kept: slice | NDArray[np.int64]) -> None:
        """Copy rows into new arrays; snapshots of the old ones stay as they are."""
        old, arrays = self.snapshot, self._allocate(capacity)
        count = len(old.times[kept])
        if isinstance(kept, slice):
            arrays.vectors[:count] = old.vectors[kept]
        else:
            # Indexing would make a second copy of the matrix on the way.
            np.take(old.vectors, kept, axis=0, out=arrays.vectors[:count], mode="clip")
        arrays.ids[:count] = old.ids[kept]
        arrays.cameras[:count] = old.cameras[kept]
        arrays.times[:count] = old.times[kept]
        self._arrays = arrays

    def _allocate(self, capacity: int) -> IndexRows:
        return IndexRows(
            ids=np.empty((capacity, 2), np.uint64),
            cameras=np.empty(capacity, np.int32),
            times=np.empty(capacity, np.int64),
            vectors=np.empty((capacity, self._dimension), np.float32),
        )

    def _view(self, rows: int, dead: NDArray[np.int64]) -> Snapshot:
        arrays = self._arrays
        return Snapshot(
            arrays.ids[:rows],
            arrays.cameras[:rows],
            arrays.times[:rows],
            arrays.vectors[:rows],
            dead,
        )


def id_halves(ids: Sequence[UUID]) -> NDArray[np.uint64]:
    """UUIDs as (N, 2) uint64, upper and lower half: 16 bytes each, and they compare as numbers."""
    flat = [half for value in ids for half in (value.int >> 64, value.int & _HALF)]
    return np.array(flat, dtype=np.uint64).reshape(-1, 2)
