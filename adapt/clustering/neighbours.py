"""Exact nearest neighbours by cosine similarity.

The matrix of similarities is symmetric, so only its blocks on and above the diagonal are
multiplied (one float32 matrix product each) and every block is offered to the heaps of its rows
and of its columns: half the arithmetic of a flat search. A few candidates more than asked for are
kept, their similarities are computed anew in float64 (:mod:`adapt.clustering.similarity`), and
the list is exact when the last neighbour lies further above the worst candidate than float32
products can err. Rows where it does not (many near-equal crops) are searched again in float64.

Order: the row itself first, then by similarity, largest first, then by index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads, map_blocks, row_blocks
from adapt.clustering.heaps import Heaps, offer_across, offer_down
from adapt.clustering.kernel import kernel
from adapt.clustering.similarity import SNAP, product_error, similarity
from resight.errors import InvalidArgument

__all__ = ["Neighbours", "nearest"]

Progress = Callable[[int, int], None]

_BLOCK = 2048
_SPARE = 8
_RETRY_ROWS = 256


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of every row.

    Attributes:
        indices: int32 (N, k); column 0 is the row itself.
        similarities: float64 (N, k), not increasing after column 0.
        searched_twice: rows whose candidates were too close together for float32.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float64]
    searched_twice: int = 0

    def __len__(self) -> int:
        return int(self.indices.shape[0])


def nearest(
    features: NDArray[np.float32],
    k: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Neighbours:
    """The ``k`` nearest rows of every row, itself included; all N where there are fewer than k.

    Args:
        features: float32 (N, D), C order, rows of unit length (see ``unit_rows``).
        k: columns wanted, at least 1.
        threads: for the heaps and the float64 products; the matrix products use the threads that
            numpy's BLAS was given. Default: every core.
        progress: called with (blocks done, blocks in all).

    Raises:
        InvalidArgument: ``k`` below 1.
    """
    if k < 1:
        raise InvalidArgument(f"k: is {k}; ask for at least one neighbour", field="k")
    rows = features.shape[0]
    others = min(k, rows) - 1
    if others < 1:
        return _only_self(features)
    threads = threads or available_threads()
    heaps = _candidates(features, min(others + _SPARE, rows - 1), threads, progress)
    error = product_error(features.shape[1]) if heaps.scores.shape[1] < rows - 1 else -np.inf
    indices = np.empty((rows, others + 1), dtype=np.int32)
    similarities = np.empty((rows, others + 1), dtype=np.float64)
    certain = np.empty(rows, dtype=np.bool_)

    def rank(start: int, stop: int) -> None:
        part = slice(start, stop)
        _rank(
            features,
            np.arange(start, stop),
            heaps.indices[part],
            heaps.worst[part].astype(np.float64) + error,
            indices[part],
            similarities[part],
            certain[part],
        )

    for _ in map_blocks(rank, row_blocks(rows, 512), threads=threads):
        pass
    doubtful = np.flatnonzero(~certain)
    for start in range(0, doubtful.size, _RETRY_ROWS):
        _search_again(features, doubtful[start : start + _RETRY_ROWS], indices, similarities)
    return Neighbours(indices, similarities, int(doubtful.size))


def _only_self(features: NDArray[np.float32]) -> Neighbours:
    rows = features.shape[0]
    own = np.einsum("nd,nd->n", features, features, dtype=np.float64)
    return Neighbours(
        np.arange(rows, dtype=np.int32)[:, None], (np.rint(own * SNAP) / SNAP)[:, None]
    )


def _candidates(
    features: NDArray[np.float32], width: int, threads: int, progress: Progress | None
) -> Heaps:
    """The ``width`` best other rows of every row by float32 products."""
    rows = features.shape[0]
    heaps = Heaps.empty(rows, width, np.float32)
    blocks = row_blocks(rows, _BLOCK)
    buffer = np.empty(min(_BLOCK, rows) ** 2, dtype=np.float32)
    total, done = len(blocks) * (len(blocks) + 1) // 2, 0
    for first, (top, bottom) in enumerate(blocks):
        for left, right in blocks[first:]:
            shape = (bottom - top, right - left)
            product = buffer[: shape[0] * shape[1]].reshape(shape)
            np.matmul(features[top:bottom], features[left:right].T, out=product)
            _offer(product, top, left, heaps, threads)
            done += 1
            if progress is not None:
                progress(done, total)
    return heaps


def _offer(product: NDArray[np.float32], top: int, left: int, heaps: Heaps, threads: int) -> None:
    height, width = product.shape
    row_ids = np.arange(top, top + height)
    own, other = slice(top, top + height), slice(left, left + width)

    def across(start: int, stop: int) -> None:
        offer_across(
            product, row_ids, left, start, stop,
            heaps.scores[own], heaps.indices[own], heaps.worst[own],
        )  # fmt: skip

    def down(start: int, stop: int) -> None:
        offer_down(
            product, top, start, stop,
            heaps.scores[other], heaps.indices[other], heaps.worst[other],
        )  # fmt: skip

    for _ in map_blocks(across, row_blocks(height, -(-height // threads)), threads=threads):
        pass
    if left != top:
        for _ in map_blocks(down, row_blocks(width, -(-width // threads)), threads=threads):
            pass


@kernel
def _rank(
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    candidates: NDArray[np.int32],
    bar: NDArray[np.float64],
    indices: NDArray[np.int32],
    similarities: NDArray[np.float64],
    certain: NDArray[np.bool_],
) -> None:
    """Order the candidates by exact similarity; certain where the last one kept clears the bar."""
    width = candidates.shape[1]
    keep = indices.shape[1]
    exact = np.empty(width, dtype=np.float64)
    order = np.empty(width, dtype=np.int32)
    for r in range(rows.shape[0]):
        i = rows[r]
        for c in range(width):
            j = candidates[r, c]
            value = similarity(features, i, j)
            at = c
            while at > 0 and (
                exact[at - 1] < value or (exact[at - 1] == value and order[at - 1] > j)
            ):
                exact[at] = exact[at - 1]
                order[at] = order[at - 1]
                at -= 1
            exact[at] = value
            order[at] = j
        indices[r, 0] = i
        similarities[r, 0] = similarity(features, i, i)
        for c in range(1, keep):
            indices[r, c] = order[c - 1]
            similarities[r, c] = exact[c - 1]
        certain[r] = exact[keep - 2] > bar[r]


def _search_again(
    features: NDArray[np.float32],
    doubtful: NDArray[np.int64],
    indices: NDArray[np.int32],
    similarities: NDArray[np.float64],
) -> None:
    """Search some rows against all in float64, ties by index, and write their lists."""
    count, others = doubtful.size, indices.shape[1] - 1
    heaps = Heaps.empty(count, others, np.float64)
    queries = features[doubtful].astype(np.float64)
    for left, right in row_blocks(features.shape[0], _BLOCK):
        product = queries @ features[left:right].astype(np.float64).T
        product *= SNAP
        np.rint(product, out=product)
        product /= SNAP
        offer_across(product, doubtful, left, 0, count, heaps.scores, heaps.indices, heaps.worst)
    found = np.empty((count, others + 1), dtype=np.int32)
    values = np.empty((count, others + 1), dtype=np.float64)
    _rank(
        features, doubtful, heaps.indices, np.full(count, -np.inf), found, values,
        np.empty(count, dtype=np.bool_),
    )  # fmt: skip
    indices[doubtful] = found
    similarities[doubtful] = values
