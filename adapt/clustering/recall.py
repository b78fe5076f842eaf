"""How many of the exact neighbours a search has found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.exact_rows import exact_lists
from adapt.clustering.layout import Layout, Scope

__all__ = ["MEASURED_ROWS", "measured_recall"]

MEASURED_ROWS = 1000
_SEED = 20_000_003


def measured_recall(
    features: NDArray[np.float32], layout: Layout, lists: NDArray[np.int32], scope: Scope
) -> float:
    """Share of the exact neighbours, the row itself not counted, that ``lists`` holds.

    Args:
        features: float32 (N, D) unit rows.
        layout: with cameras if ``scope`` is not ``all``.
        lists: int32 (N, k), -1 for none; column 0 is the row itself unless ``scope`` is ``other``.
        scope: where the neighbours are looked for.

    Returns:
        The share over ``MEASURED_ROWS`` random rows (all, where there are fewer), by brute force in
        float64; 1 where nobody is in scope.
    """
    positions = np.random.default_rng(_SEED).permutation(layout.rows)[:MEASURED_ROWS]
    exact = exact_lists(features, layout, scope, np.sort(positions), lists.shape[1])
    hits = wanted = 0
    for i, row in zip(exact.rows, exact.indices, strict=True):
        true = row[(row >= 0) & (row != i)]
        wanted += true.size
        hits += int(np.isin(true, lists[i]).sum())
    return hits / wanted if wanted else 1.0
