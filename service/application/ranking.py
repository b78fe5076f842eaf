"""The best rows of a query as one function of how many are wanted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.application.asked import Asked
from service.domain.ports import IndexHits

__all__ = ["Ranking"]


class Ranking:
    """Ranks the rows of a gallery by a query; called on a searching thread.

    Args:
        asked: The query.
        vector: float32 (D,), unit L2 norm.
    """

    def __init__(self, asked: Asked, vector: NDArray[np.float32]) -> None:
        self._asked = asked
        self._vector = vector

    def best(self, count: int) -> IndexHits:
        """The best ``count`` rows that pass everything asked; fewer when fewer do."""
        asked = self._asked
        found = asked.gallery.index.search(self._vector, count, asked.row_filter, asked.lowest)
        return self._likely(found)

    def _likely(self, hits: IndexHits) -> IndexHits:
        """The hits of the probability wanted; they come first, for it never falls."""
        wanted, calibration = self._asked.min_probability, self._asked.calibration
        if wanted is None or calibration is None:
            return hits
        kept = len(hits.ids)
        while kept and calibration.probability(float(hits.scores[kept - 1])) < wanted:
            kept -= 1
        return replace(hits, ids=hits.ids[:kept], scores=hits.scores[:kept])
