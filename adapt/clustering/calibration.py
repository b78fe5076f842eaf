"""How many of the exact neighbours of some random rows a search finds, or would find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.cells import nearest_cells
from adapt.clustering.exact_rows import exact_lists
from adapt.clustering.heaps import Heaps
from adapt.clustering.layout import Layout, Wanted

__all__ = ["Calibration"]

_ROWS = 512


@dataclass(frozen=True)
class Calibration:
    """Exact neighbours of random rows of one part of a layout.

    Attributes:
        positions: int64 (R,) of the rows.
        rows: int32 (R,), the rows.
        neighbours: int32 (R, k), -1 for none, the row itself left out.
    """

    positions: NDArray[np.int64]
    rows: NDArray[np.int32]
    neighbours: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        features: NDArray[np.float32],
        layout: Layout,
        part: tuple[int, int],
        want: Wanted,
        *,
        seed: int,
    ) -> Calibration:
        """By brute force over all rows, for 512 rows at positions of ``part``."""
        random = np.random.default_rng(seed)
        taken = np.sort(part[0] + random.permutation(part[1] - part[0])[:_ROWS])
        own = int(want.scope != "other")
        exact = exact_lists(features, layout, want.scope, taken, want.kept + own)
        return cls(taken, exact.rows, exact.indices[:, own:])

    def cells_for(
        self,
        recalls: Sequence[float],
        features: NDArray[np.float32],
        centres: NDArray[np.float32],
        *,
        threads: int,
    ) -> list[int]:
        """Cells that each row must look into to meet such shares of its neighbours."""
        row, column = np.nonzero(self.neighbours >= 0)
        if not row.size:
            return [1] * len(recalls)
        cells = centres.shape[0]
        order = nearest_cells(features, self.rows, centres, cells, threads=threads)
        rank_of = np.empty_like(order)
        np.put_along_axis(rank_of, order, np.arange(cells, dtype=np.int32)[None], axis=1)
        met = self.neighbours[row, column]
        home = nearest_cells(features, met, centres, 1, threads=threads)[:, 0]
        ranks = np.sort(rank_of[row, home])
        return [int(ranks[int(np.ceil(share * ranks.size)) - 1]) + 1 for share in recalls]

    def recall(self, heap: Heaps) -> float:
        """Share of the neighbours that the heaps hold; 1 where nobody is in scope."""
        true = self.neighbours
        wanted = int(np.count_nonzero(true >= 0))
        held = heap.indices[self.positions]
        hits = sum(
            int(np.isin(some[some >= 0], found).sum())
            for some, found in zip(true, held, strict=True)
        )
        return hits / wanted if wanted else 1.0
