"""The best few columns of each row, kept in one binary heap a row while scores stream past.

A heap's root is its worst entry. Entries are ordered by score, and among equal scores the higher
index is the worse, so that the result does not depend on the order in which blocks arrive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.kernel import kernel

__all__ = ["NOBODY", "Heaps", "offer_across", "offer_down", "sift"]

NOBODY = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class Heaps:
    """One heap of ``width`` entries a row.

    Attributes:
        scores: float (N, width); -inf where nothing has been offered yet.
        indices: int32 (N, width); the largest int32 where nothing has been offered yet.
        worst: float (N,): a copy of each root's score, contiguous for the scan.
    """

    scores: NDArray[np.floating]
    indices: NDArray[np.int32]
    worst: NDArray[np.floating]

    @classmethod
    def empty(cls, rows: int, width: int, dtype: type[np.floating]) -> Heaps:
        """Heaps that nothing has been offered to."""
        return cls(
            scores=np.full((rows, width), -np.inf, dtype=dtype),
            indices=np.full((rows, width), NOBODY, dtype=np.int32),
            worst=np.full(rows, -np.inf, dtype=dtype),
        )


@kernel
def sift(
    scores: NDArray[np.floating], indices: NDArray[np.int32], score: float, index: int
) -> None:
    """Compiled: replace the root by (score, index) and restore the heap order."""
    width = scores.shape[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= width:
            break
        other = child + 1
        if other < width and (
            scores[other] < scores[child]
            or (scores[other] == scores[child] and indices[other] > indices[child])
        ):
            child = other
        if scores[child] > score or (scores[child] == score and indices[child] < index):
            break
        scores[at] = scores[child]
        indices[at] = indices[child]
        at = child
    scores[at] = score
    indices[at] = index


@kernel
def _holds(indices: NDArray[np.int32], index: int) -> bool:
    for held in indices:  # noqa: SIM110 - any() over a generator does not compile
        if held == index:
            return True
    return False


@kernel
def offer_across(
    block: NDArray[np.floating],
    heap_rows: NDArray[np.int64],
    row_ids: NDArray[np.int32],
    column_ids: NDArray[np.int32],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    inside: bool,
    start: int,
    stop: int,
    distinct: bool,
    scores: NDArray[np.floating],
    indices: NDArray[np.int32],
    worst: NDArray[np.floating],
) -> None:
    """Offer ``block[r, c]`` to heap ``heap_rows[r]``, r in start..stop; a row never meets itself.

    Args:
        block: (R, C) scores.
        heap_rows: int64 (R,): the heap of each row of the block, none twice.
        row_ids, column_ids: int32 (R,) and (C,): the rows of the data that they are.
        low, high, inside: which columns each row may meet, see ``Span``.
        start, stop: rows of the block to work on.
        distinct: pass over what a heap holds already; without it nothing must be offered twice.
        scores, indices, worst: the heaps.
    """
    columns = block.shape[1]
    for r in range(start, stop):
        h = heap_rows[r]
        limit = worst[h]
        for part in range(1 if inside else 2):
            if inside:
                begin, end = low[r], high[r]
            elif part == 0:
                begin, end = 0, low[r]
            else:
                begin, end = high[r], columns
            for c in range(begin, end):
                score = block[r, c]
                if score >= limit:
                    column = column_ids[c]
                    if column != row_ids[r] and (score > limit or column < indices[h, 0]):
                        if distinct and _holds(indices[h], column):
                            continue
                        sift(scores[h], indices[h], score, column)
                        limit = scores[h, 0]
        worst[h] = limit


@kernel
def offer_down(
    block: NDArray[np.floating],
    row_ids: NDArray[np.int32],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    inside: bool,
    start: int,
    stop: int,
    scores: NDArray[np.floating],
    indices: NDArray[np.int32],
    worst: NDArray[np.floating],
) -> None:
    """Offer ``block[r, c]`` to heap ``c`` for columns start..stop: the transposed block's scores.

    The block must lie off the diagonal: no row meets itself in it. ``low``, ``high`` and
    ``inside`` are those of the rows: being of one camera is symmetric.
    """
    for r in range(block.shape[0]):
        row = row_ids[r]
        for part in range(1 if inside else 2):
            if inside:
                begin, end = max(low[r], start), min(high[r], stop)
            elif part == 0:
                begin, end = start, min(low[r], stop)
            else:
                begin, end = max(high[r], start), stop
            for c in range(begin, end):
                score = block[r, c]
                if score >= worst[c] and (score > worst[c] or row < indices[c, 0]):
                    sift(scores[c], indices[c], score, row)
                    worst[c] = scores[c, 0]
