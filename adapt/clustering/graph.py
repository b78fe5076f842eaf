"""Pairs of crops that are close, as DBSCAN reads them: whole in memory, or block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.kernel import kernel

__all__ = ["DistanceGraph", "SparseDistances", "StreamedDistances", "UpperBlock", "symmetric"]


class UpperBlock(NamedTuple):
    """Pairs (i, j), j > i, of consecutive rows i.

    Attributes:
        first: index of the first row.
        counts: int64 (R,): pairs of each row.
        indices: int32 (sum of counts,): the columns j, row after row, in no order within a row.
        distances: float32, beside ``indices``.
    """

    first: int
    counts: NDArray[np.int64]
    indices: NDArray[np.int32]
    distances: NDArray[np.float32]


class DistanceGraph(Protocol):
    """Every pair of rows no further apart than ``max_distance``."""

    @property
    def rows(self) -> int:
        """Rows of the graph, N."""
        ...

    @property
    def max_distance(self) -> float:
        """Radius within which the graph is complete."""
        ...

    def upper_blocks(self) -> Iterator[UpperBlock]:
        """Every pair once, j > i, in order of i."""
        ...


@dataclass(frozen=True)
class SparseDistances:
    """Symmetric distances in CSR form, the diagonal left out, columns ascending in each row.

    Attributes:
        indptr: int64 (N + 1,).
        indices: int32 (pairs * 2,).
        distances: float32, beside ``indices``; 0 is a distance like any other.
        max_distance: no pair is further apart, and every pair this close is present.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    distances: NDArray[np.float32]
    max_distance: float

    @property
    def rows(self) -> int:
        """Rows of the graph, N."""
        return int(self.indptr.size - 1)

    def upper_blocks(self) -> Iterator[UpperBlock]:
        """Every pair once, j > i, as one block."""
        counts, indices, distances = _upper(self.indptr, self.indices, self.distances)
        yield UpperBlock(0, counts, indices, distances)

    def within(self, max_distance: float) -> SparseDistances:
        """The pairs no further apart than ``max_distance``, itself at most this graph's."""
        kept = self.distances <= np.float32(max_distance)
        indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])[self.indptr]
        return SparseDistances(indptr, self.indices[kept], self.distances[kept], max_distance)


@dataclass(frozen=True)
class StreamedDistances:
    """A graph with too many pairs to hold: its blocks are computed whenever they are asked for.

    Attributes:
        rows: N.
        max_distance: as in :class:`SparseDistances`.
        produce: gives the blocks, in order of their rows.
    """

    rows: int
    max_distance: float
    produce: Callable[[], Iterator[UpperBlock]]

    def upper_blocks(self) -> Iterator[UpperBlock]:
        """Every pair once, j > i, computed anew."""
        return self.produce()


def symmetric(blocks: list[UpperBlock], rows: int, max_distance: float) -> SparseDistances:
    """Both directions of every pair of ``blocks``, as CSR with ascending columns."""
    degrees = np.zeros(rows + 1, dtype=np.int64)
    for block in blocks:
        _count(block.first, block.counts, block.indices, degrees)
    indptr = np.cumsum(degrees)
    cursor = indptr[:-1].copy()
    indices = np.empty(indptr[-1], dtype=np.int32)
    distances = np.empty(indptr[-1], dtype=np.float32)
    # Row i meets its lower columns first (as the partner of earlier rows), then its own sorted
    # upper ones, so ascending blocks give ascending columns.
    for block in blocks:
        _place(*block, cursor, indices, distances)
    return SparseDistances(indptr, indices, distances, max_distance)


@kernel
def _count(
    first: int, counts: NDArray[np.int64], columns: NDArray[np.int32], degrees: NDArray[np.int64]
) -> None:
    at = 0
    for r in range(counts.shape[0]):
        degrees[first + r + 1] += counts[r]
        for _ in range(counts[r]):
            degrees[columns[at] + 1] += 1
            at += 1


@kernel
def _place(
    first: int,
    counts: NDArray[np.int64],
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    cursor: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
) -> None:
    start = 0
    for r in range(counts.shape[0]):
        i = first + r
        order = np.argsort(columns[start : start + counts[r]])
        for o in order:
            j = columns[start + o]
            indices[cursor[i]] = j
            distances[cursor[i]] = values[start + o]
            cursor[i] += 1
            indices[cursor[j]] = i
            distances[cursor[j]] = values[start + o]
            cursor[j] += 1
        start += counts[r]


@kernel
def _upper(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], distances: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    rows = indptr.shape[0] - 1
    counts = np.zeros(rows, dtype=np.int64)
    columns = np.empty(indices.shape[0] // 2, dtype=np.int32)
    values = np.empty(indices.shape[0] // 2, dtype=np.float32)
    at = 0
    for i in range(rows):
        for p in range(indptr[i], indptr[i + 1]):
            if indices[p] > i:
                columns[at] = indices[p]
                values[at] = distances[p]
                counts[i] += 1
                at += 1
    return counts, columns, values
