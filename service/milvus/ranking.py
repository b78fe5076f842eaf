"""Candidates from Milvus scored as the answer is defined, and ranked."""

from __future__ import annotations

from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import IndexHits
from service.domain.query import SearchMode
from service.milvus.collection import Found

__all__ = ["nothing", "ranked"]


def nothing(dimension: int) -> Found:
    """No row."""
    return Found(np.empty(0, "U32"), np.empty(0, np.float32), np.empty((0, dimension), np.float32))


def ranked(
    found: Found,
    query: NDArray[np.float32],
    top_k: int,
    excluded: set[str],
    min_score: float | None,
    count: int,
    total: int,
) -> IndexHits:
    """The best ``top_k`` of the candidates, by defined score, then by id; ``count`` rows passed of
    ``total``.
    """
    # As service.gallery.ranking: a row's sum does not depend on its neighbours.
    scores = (found.vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    rounded = scores.astype(np.float32)
    kept = np.array([text not in excluded for text in found.ids.tolist()], dtype=bool)
    if min_score is not None:
        kept &= rounded >= np.float32(min_score)
    ids, rounded = found.ids[kept], rounded[kept]
    order = np.lexsort((ids, -rounded))[:top_k]
    return IndexHits(
        ids=[UUID(hex=text) for text in ids[order].tolist()],
        scores=rounded[order],
        mode=SearchMode.EXACT_SCAN,
        rows_scanned=count,
        rows_total=total,
    )
