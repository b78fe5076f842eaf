"""The exact lists of some rows, by brute force in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import row_blocks
from adapt.clustering.heaps import Heaps, offer_across
from adapt.clustering.layout import Layout, Scope
from adapt.clustering.ranking import rank
from adapt.clustering.similarity import SNAP

__all__ = ["ExactLists", "exact_lists"]

_BLOCK = 2048


class ExactLists(NamedTuple):
    """Lists of some rows.

    Attributes:
        rows: int32 (R,): the rows.
        indices: int32 (R, k), nearest first, ties by index, -1 where fewer are in scope; column 0
            is the row itself unless the scope is ``other``.
        similarities: float64 (R, k).
    """

    rows: NDArray[np.int32]
    indices: NDArray[np.int32]
    similarities: NDArray[np.float64]


def exact_lists(
    features: NDArray[np.float32],
    layout: Layout,
    scope: Scope,
    positions: NDArray[np.int64],
    columns: int,
) -> ExactLists:
    """The nearest rows of those at ``positions``, among all of the layout."""
    rows = layout.order[positions]
    own = scope != "other"
    heaps = Heaps.empty(rows.size, max(columns - own, 1), np.float64)
    queries = features[rows].astype(np.float64)
    begin, end = 0, layout.rows
    if scope == "same" and positions.size:
        begin, end = int(layout.first[positions].min()), int(layout.last[positions].max())
    for left, right in ((begin + a, begin + b) for a, b in row_blocks(end - begin, _BLOCK)):
        product = queries @ layout.features(features, left, right).astype(np.float64).T
        product *= SNAP
        np.rint(product, out=product)
        product /= SNAP
        offer_across(
            product, np.arange(rows.size), rows, layout.order[left:right],
            *layout.span(scope, positions, left, right), 0, rows.size, False,
            heaps.scores, heaps.indices, heaps.worst,
        )  # fmt: skip
    found = ExactLists(
        rows,
        np.empty((rows.size, columns), dtype=np.int32),
        np.empty((rows.size, columns), dtype=np.float64),
    )
    rank(
        features, rows, heaps.indices, np.full(rows.size, -np.inf), own,
        found.indices, found.similarities, np.empty(rows.size, dtype=np.bool_),
    )  # fmt: skip
    return found
