"""Close pairs of sparse rows, found by walking inverted lists.

``s(i, j) = sum_k min(V_ik, V_jk)`` is summed for j > i only: J is symmetric. The list of a column
holds its rows in ascending order and is walked from its end down to i, so the rows before i cost
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import map_blocks, row_blocks
from adapt.clustering.graph import UpperBlock
from adapt.clustering.kernel import kernel
from adapt.clustering.sparse_rows import SparseRows

__all__ = ["InvertedRows"]

# Entries that one block of rows can at most write down, so that a block stays near 32 MB.
_BLOCK_PAIRS = 1 << 22


@dataclass(frozen=True)
class InvertedRows:
    """Sparse rows beside their transpose, and the radius within which pairs are wanted.

    Attributes:
        encoded: V, rows summing to 1.
        starts: int64 (N + 1,), where each column's inverted list starts.
        members: int32, the rows of each list, ascending.
        weights: float64, V beside ``members``.
        max_distance: radius of J.
        threads: to run on.
    """

    encoded: SparseRows
    starts: NDArray[np.int64]
    members: NDArray[np.int32]
    weights: NDArray[np.float64]
    max_distance: float
    threads: int

    @classmethod
    def of(cls, encoded: SparseRows, *, max_distance: float, threads: int) -> InvertedRows:
        """Invert ``encoded``."""
        starts, members, weights = _transposed(encoded.indptr, encoded.indices, encoded.values)
        return cls(encoded, starts, members, weights, max_distance, threads)

    def blocks(self) -> Iterator[UpperBlock]:
        """Every pair j > i with J(i, j) <= max_distance, by ascending blocks of i."""
        rows = self.encoded.rows
        scratch = threading.local()

        def block(start: int, stop: int) -> UpperBlock:
            if not hasattr(scratch, "shared"):
                scratch.shared = np.zeros(rows, dtype=np.float64)
                scratch.met = np.empty(rows, dtype=np.int32)
            return UpperBlock(
                start,
                *_close_pairs(
                    self.encoded.indptr, self.encoded.indices, self.encoded.values,
                    self.starts, self.members, self.weights,
                    np.float32(self.max_distance), start, stop, scratch.shared, scratch.met,
                ),
            )  # fmt: skip

        height = max(16, min(1024, _BLOCK_PAIRS // max(rows, 1)))
        yield from map_blocks(block, row_blocks(rows, height), threads=self.threads)


@kernel
def _transposed(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    rows = indptr.shape[0] - 1
    starts = np.zeros(rows + 1, dtype=np.int64)
    for p in range(indices.shape[0]):
        starts[indices[p] + 1] += 1
    for c in range(rows):
        starts[c + 1] += starts[c]
    cursor = starts[:-1].copy()
    members = np.empty(indices.shape[0], dtype=np.int32)
    weights = np.empty(indices.shape[0], dtype=np.float64)
    for i in range(rows):
        for p in range(indptr[i], indptr[i + 1]):
            at = cursor[indices[p]]
            members[at] = i
            weights[at] = values[p]
            cursor[indices[p]] = at + 1
    return starts, members, weights


@kernel
def _close_pairs(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float64],
    starts: NDArray[np.int64],
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    max_distance: np.float32,
    start: int,
    stop: int,
    shared: NDArray[np.float64],
    met: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    counts = np.zeros(stop - start, dtype=np.int64)
    columns = np.empty(32 * (stop - start), dtype=np.int32)
    distances = np.empty(32 * (stop - start), dtype=np.float32)
    at = 0
    for i in range(start, stop):
        seen = 0
        for p in range(indptr[i], indptr[i + 1]):
            c = indices[p]
            own = values[p]
            for q in range(starts[c + 1] - 1, starts[c] - 1, -1):
                j = members[q]
                if j <= i:
                    break
                if shared[j] == 0.0:
                    met[seen] = j
                    seen += 1
                shared[j] += min(own, weights[q])
        if at + seen > columns.shape[0]:
            capacity = 2 * columns.shape[0] + seen
            more_columns = np.empty(capacity, dtype=np.int32)
            more_distances = np.empty(capacity, dtype=np.float32)
            more_columns[:at] = columns[:at]
            more_distances[:at] = distances[:at]
            columns = more_columns
            distances = more_distances
        first = at
        for m in range(seen):
            j = met[m]
            s = shared[j]
            shared[j] = 0.0
            distance = np.float32(max(1.0 - s / (2.0 - s), 0.0))
            if distance <= max_distance:
                columns[at] = j
                distances[at] = distance
                at += 1
        counts[i - start] = at - first
    return counts, columns[:at].copy(), distances[:at].copy()
