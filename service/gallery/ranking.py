"""Candidates scored as the answer is defined, and ranked."""

from __future__ import annotations

from collections.abc import Sequence
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
    segments, numbers = candidates.segments, candidates.rows
    ids = np.empty((len(numbers), 2), np.uint64)
    scores = np.empty(len(numbers), np.float32)
    wide = query.astype(np.float64)
    for segment in np.unique(segments).tolist():
        places = np.flatnonzero(segments == segment)
        columns = views[segment].columns
        ids[places] = columns.ids[numbers[places]]
        for start in range(0, len(places), BLOCK):
            part = places[start : start + BLOCK]
            # A row's sum does not depend on its neighbours: the reduction is row by row.
            scores[part] = (columns.vectors[numbers[part]].astype(np.float64) * wide).sum(axis=1)
    kept = np.ones(len(numbers), dtype=bool)
    if len(excluded):
        kept[excluded.rows(ids)] = False
    if min_score is not None:
        kept &= scores >= np.float32(min_score)
    ids, scores = ids[kept], scores[kept]
    order = np.lexsort((ids[:, 1], ids[:, 0], -scores))[:top_k]
    return Ranked(uuids(ids[order]), scores[order])
