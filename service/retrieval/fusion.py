"""Several examples of one person as one query.

MEAN     q ~ sum_i w_i p_i / sum_i w_i - g sum_j v_j n_j / sum_j v_j, of unit length
QUALITY  as MEAN, w_i multiplied by the quality of p_i (service.retrieval.quality)
MAX      s(x) = max_i <p_i, x>; x is left out where max_j <n_j, x> > s(x)

p_i are the wanted examples, n_j the unwanted ones, w and v their weights. MEAN is Rocchio's rule
(Manning, Raghavan and Schuetze, Introduction to Information Retrieval, eq. 9.3) with the query
among the wanted examples and g = 0.15 / 0.75, the ratio that the book calls reasonable. The best
rows by MAX are found exactly: a row among the best ``count`` is among the best ``count`` of the
example that gives it its score, so the union of those lists holds it with that score.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from resight.errors import InvalidArgument
from service.domain.ports import IndexHits
from service.domain.query import SearchMode

__all__ = ["NEGATIVE_SHARE", "mean_query", "nearer_to", "union"]

NEGATIVE_SHARE = 0.15 / 0.75
# A sum this short is what rounding leaves of examples that cancel.
SHORTEST = 1e-5

Vectors = NDArray[np.float32]


def mean_query(
    positives: Vectors, weights: Sequence[float], negatives: Vectors, unwanted: Sequence[float]
) -> Vectors:
    """The query of MEAN, float32 (D,), unit L2 norm.

    Args:
        positives: (P, D), P at least 1, unit L2 norm.
        weights: P, above zero.
        negatives: (N, D).
        unwanted: N weights.

    Raises:
        InvalidArgument: the examples cancel each other.
    """
    if len(positives) == 1 and not len(negatives):
        alone: Vectors = positives[0]
        return alone
    query = _mean(positives, weights)
    if len(negatives):
        query = query - NEGATIVE_SHARE * _mean(negatives, unwanted)
    norm = float(np.linalg.norm(query))
    if norm < SHORTEST:
        raise InvalidArgument(
            "positives: the examples cancel each other, so their mean points nowhere; send "
            "examples of one person, or fusion MAX",
            field="positives",
        )
    return (query / norm).astype(np.float32)


def union(lists: Sequence[IndexHits], count: int) -> IndexHits:
    """The best ``count`` rows by the highest score that any list gives them, ties by id."""
    if len(lists) == 1:
        return lists[0]
    best: dict[UUID, float] = {}
    for hits in lists:
        for crop_id, score in zip(hits.ids, hits.scores.tolist(), strict=True):
            if score > best.get(crop_id, -np.inf):
                best[crop_id] = score
    ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:count]
    scanned = any(hits.mode is SearchMode.EXACT_SCAN for hits in lists)
    return IndexHits(
        ids=[crop_id for crop_id, _ in ranked],
        scores=np.array([score for _, score in ranked], np.float32),
        mode=SearchMode.EXACT_SCAN if scanned else SearchMode.EXACT_GATHER,
        rows_scanned=max(hits.rows_scanned for hits in lists),
        rows_total=max(hits.rows_total for hits in lists),
    )


def nearer_to(negatives: Vectors, vectors: Vectors, scores: Vectors) -> NDArray[np.bool_]:
    """Which rows (R, D) are nearer to a negative than their score (R,) says they are wanted."""
    products = vectors.astype(np.float64) @ negatives.astype(np.float64).T
    found: NDArray[np.bool_] = products.max(axis=1).astype(np.float32) > scores
    return found


def _mean(vectors: Vectors, weights: Sequence[float]) -> NDArray[np.float64]:
    share = np.asarray(weights, np.float64)
    mean: NDArray[np.float64] = (share / share.sum()) @ vectors.astype(np.float64)
    return mean
