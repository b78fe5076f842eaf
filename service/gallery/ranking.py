"""Candidates scored as the answer is defined, and ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.gallery.candidates import Candidates
from service.gallery.row_ids import IdSet, uuids
from service.gallery.segment import SegmentView

__all__ = ["Ranked", "rank"]

# Rows scored at once: bounds the float64 copy to a few megabytes.
BLOCK = 2048


class Ranked(NamedTuple):
    """Ids and scores, best first."""

    ids: list[UUID]
    scores: NDArray[np.float32]


def rank(
    views: Sequence[SegmentView],
    candidates: Candidates,
    query: NDArray[np.float32],
    top_k: int,
    excluded: IdSet,
    min_score: float | None,
) -> Ranked:
    """The best ``top_k`` of the candidates, by defined score, then by id."""
    order = np.argsort(candidates.segments, kind="stable")
    segments, numbers = candidates.segments[order], candidates.rows[order]
    ids = np.empty((len(numbers), 2), np.uint64)
    scores = np.empty(len(numbers), np.float32)
    wide = query.astype(np.float64)
    for start in range(0, len(numbers), BLOCK):
        part = slice(start, start + BLOCK)
        vectors = np.empty((len(numbers[part]), len(query)), np.float32)
        for segment, first, last in _runs(segments[part]):
            columns, rows = views[segment].columns, numbers[part][first:last]
            ids[part][first:last] = columns.ids[rows]
            vectors[first:last] = columns.vectors[rows]
        # A row's sum does not depend on its neighbours: the reduction is row by row.
        scores[part] = (vectors.astype(np.float64) * wide).sum(axis=1)
    kept = np.ones(len(numbers), dtype=bool)
    if len(excluded):
        kept[excluded.rows(ids)] = False
    if min_score is not None:
        kept &= scores >= np.float32(min_score)
    ids, scores = ids[kept], scores[kept]
    order = np.lexsort((ids[:, 1], ids[:, 0], -scores))[:top_k]
    return Ranked(uuids(ids[order]), scores[order])


def _runs(segments: NDArray[np.int32]) -> Iterator[tuple[int, int, int]]:
    """Stretches of equal numbers: the number, where it begins, where it ends."""
    first = 0
    for last in (*(np.flatnonzero(np.diff(segments)) + 1).tolist(), len(segments)):
        yield int(segments[first]), first, last
        first = last
