"""The best rows of a query as one function of how many are wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resight.errors import DeadlineExceeded, InvalidArgument
from service.application.asked import Asked
from service.application.query_vectors import Probe
from service.domain.ports import IndexHits, RowFilter
from service.retrieval.fusion import nearer_to, union

__all__ = ["Candidates", "FirstLook", "Ranking", "candidates"]


class FirstLook(NamedTuple):
    """What the index answered already: the best ``depth`` rows under the query's own filter, for
    each of its wanted vectors.
    """

    depth: int
    hits: Sequence[IndexHits]


class Ranking:
    """Ranks the rows of a gallery by a query; called on a searching thread.

    Args:
        asked: The query.
        probe: Its vectors.
        deepest: Most rows that may be ranked.
        deadline: Moment of ``time.monotonic()`` after which the index is asked no more.
        first: Saves the look that it is.
    """

    def __init__(
        self,
        asked: Asked,
        probe: Probe,
        *,
        deepest: int,
        deadline: float | None = None,
        first: FirstLook | None = None,
    ) -> None:
        self._asked = asked
        self._probe = probe
        self._deepest = deepest
        self._deadline = deadline
        self._first = first

    def best(self, count: int, row_filter: RowFilter | None = None) -> IndexHits:
        """The best ``count`` rows that pass everything asked; fewer when fewer do.

        Args:
            count: Rows wanted.
            row_filter: Another one than the query's.

        Raises:
            InvalidArgument: too many rows are nearer to an unwanted example.
            DeadlineExceeded: the deadline passed while it waited for its thread.
        """
        chosen, depth = row_filter or self._asked.row_filter, count
        while True:
            hits = self._found(depth, chosen)
            kept = self._without_unwanted(hits)
            if len(kept.ids) >= count or len(hits.ids) < depth:
                return self._likely(_first(kept, count))
            if depth >= self._deepest:
                raise InvalidArgument(
                    f"negatives: of the best {depth} matches only {len(kept.ids)} are nearer to a "
                    "positive than to a negative (limits.max_ranked); send other negatives, a "
                    "filter or min_score",
                    field="negatives",
                )
            depth = min(4 * depth, self._deepest)

    def _found(self, count: int, chosen: RowFilter) -> IndexHits:
        asked, first = self._asked, self._first
        if first is not None and first.depth == count and chosen is asked.row_filter:
            self._first = None
            return union(first.hits, count)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the deadline passed before the search ended; allow more time")
        index = asked.serving.index
        return union(index.search_batch(self._probe.wanted, count, chosen, asked.lowest), count)

    def _without_unwanted(self, hits: IndexHits) -> IndexHits:
        unwanted = self._probe.unwanted
        if not len(unwanted) or not hits.ids:
            return hits
        there, vectors = self._asked.serving.index.vectors_of(hits.ids)
        # A row that has gone since is left for the catalog to miss.
        left_out = np.zeros(len(hits.ids), dtype=bool)
        left_out[there] = nearer_to(unwanted, vectors, hits.scores[there])
        kept = np.flatnonzero(~left_out).tolist()
        return replace(hits, ids=[hits.ids[place] for place in kept], scores=hits.scores[kept])

    def _likely(self, hits: IndexHits) -> IndexHits:
        """The hits of the probability wanted; they come first, for it never falls."""
        wanted, calibration = self._asked.min_probability, self._asked.calibration
        if wanted is None or calibration is None:
            return hits
        kept = len(hits.ids)
        while kept and calibration.probability(float(hits.scores[kept - 1])) < wanted:
            kept -= 1
        return _first(hits, kept)


class Candidates(NamedTuple):
    """Hits, the places in them of the rows that are still there, and those rows' vectors."""

    hits: IndexHits
    there: NDArray[np.int64]
    vectors: NDArray[np.float32]


def candidates(asked: Asked, count: int, best: Callable[[int], IndexHits]) -> Candidates:
    """The best ``count`` rows with their vectors."""
    hits = best(count)
    return Candidates(hits, *asked.serving.index.vectors_of(hits.ids))


def _first(hits: IndexHits, count: int) -> IndexHits:
    return replace(hits, ids=hits.ids[:count], scores=hits.scores[:count])
