"""Sparse non-negative rows that sum to 1, and their averages over lists of neighbours."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import map_blocks, row_blocks
from adapt.clustering.kernel import kernel

__all__ = ["EncodedBlock", "SparseRows", "assemble", "expand"]

_PARTS = 8


class EncodedBlock(NamedTuple):
    """Consecutive sparse rows: int64 entries of each row, int32 columns, float64 values."""

    counts: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix (N, N) by rows: int64 indptr, int32 columns in no order, float64 values."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float64]

    @property
    def rows(self) -> int:
        """Rows, N."""
        return int(self.indptr.size - 1)


def expand(encoded: SparseRows, lists: NDArray[np.int32], *, threads: int) -> SparseRows:
    """Local query expansion: each row becomes the mean of the rows in its list.

    Args:
        encoded: V.
        lists: int32 (N, w), w > 0; column 0 is the row itself, further ones may be -1 (nobody).
        threads: to run on.
    """
    if lists.shape[1] == 1:
        return encoded
    lists = np.ascontiguousarray(lists)

    def block(start: int, stop: int) -> EncodedBlock:
        return EncodedBlock(
            *_expand_rows(encoded.indptr, encoded.indices, encoded.values, lists, start, stop)
        )

    return assemble(block, encoded.rows, threads)


def assemble(block: Callable[[int, int], EncodedBlock], rows: int, threads: int) -> SparseRows:
    """The rows of every ``block(start, stop)``, in order, as one matrix."""
    ranges = row_blocks(rows, max(64, -(-rows // (_PARTS * threads))))
    parts = deque(map_blocks(block, ranges, threads=threads))
    counts = np.concatenate([np.zeros(1, dtype=np.int64), *(part.counts for part in parts)])
    indptr = np.cumsum(counts)
    indices = np.empty(indptr[-1], dtype=np.int32)
    values = np.empty(indptr[-1], dtype=np.float64)
    at = 0
    while parts:  # each is let go once it is copied: never two whole matrices in memory
        part = parts.popleft()
        stop = at + part.indices.size
        indices[at:stop], values[at:stop] = part.indices, part.values
        at = stop
    return SparseRows(indptr, indices, values)


@kernel
def _expand_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float64],
    lists: NDArray[np.int32],
    start: int,
    stop: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    rows, width = lists.shape
    total = np.zeros(rows, dtype=np.float64)
    counts = np.zeros(stop - start, dtype=np.int64)
    # Before division, so that a row's capacity is what its parts hold together.
    capacity = 0
    for i in range(start, stop):
        for p in range(width):
            j = lists[i, p]
            if j >= 0:
                capacity += indptr[j + 1] - indptr[j]
    columns = np.empty(capacity, dtype=np.int32)
    means = np.empty(capacity, dtype=np.float64)
    at = 0
    for i in range(start, stop):
        first = at
        parts = 0
        for p in range(width):
            j = lists[i, p]
            if j < 0:
                continue
            parts += 1
            for q in range(indptr[j], indptr[j + 1]):
                c = indices[q]
                if total[c] == 0.0:
                    columns[at] = c
                    at += 1
                total[c] += values[q]
        for m in range(first, at):
            means[m] = total[columns[m]] / parts
            total[columns[m]] = 0.0
        counts[i - start] = at - first
    return counts, columns[:at].copy(), means[:at].copy()
