"""Candidates put in order by exact similarity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.heaps import NOBODY
from adapt.clustering.kernel import kernel
from adapt.clustering.similarity import similarity

__all__ = ["rank"]


@kernel
def rank(
    features: NDArray[np.float32],
    rows: NDArray[np.int32],
    candidates: NDArray[np.int32],
    bar: NDArray[np.float64],
    own: bool,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float64],
    certain: NDArray[np.bool_],
) -> None:
    """Order each row's candidates by similarity, largest first, then by index.

    Args:
        features: float32 (N, D) unit rows.
        rows: int32 (R,), the rows to make lists for.
        candidates: int32 (R, W) in any order, ``NOBODY`` for none.
        bar: float64 (R,): what the last neighbour kept must lie above to be certain.
        own: whether column 0 is the row itself.
        indices, similarities: (R, k), written; -1 and 0 where candidates are fewer.
        certain: bool (R,), written: the last one kept clears the bar, or there are fewer.
    """
    width = candidates.shape[1]
    first = 1 if own else 0
    keep = indices.shape[1] - first
    exact = np.empty(width, dtype=np.float64)
    order = np.empty(width, dtype=np.int32)
    for r in range(rows.shape[0]):
        i = rows[r]
        found = 0
        for c in range(width):
            j = candidates[r, c]
            if j == NOBODY:
                continue
            value = similarity(features, i, j)
            at = found
            while at > 0 and (
                exact[at - 1] < value or (exact[at - 1] == value and order[at - 1] > j)
            ):
                exact[at] = exact[at - 1]
                order[at] = order[at - 1]
                at -= 1
            exact[at] = value
            order[at] = j
            found += 1
        if own:
            indices[r, 0] = i
            similarities[r, 0] = similarity(features, i, i)
        for c in range(keep):
            indices[r, first + c] = order[c] if c < found else -1
            similarities[r, first + c] = exact[c] if c < found else 0.0
        certain[r] = found < keep or exact[keep - 1] > bar[r]
