"""k-reciprocal re-ranking (Zhong, Zheng, Cao and Li, Re-ranking Person Re-identification with
k-reciprocal Encoding, CVPR 2017), over a query and its candidates.

N(p, k)   p and its k nearest, by distance, then by place; the query first, then as ranked
R(p, k) = { g in N(p, k) : p in N(g, k) }                                               (eq. 3)
R*(p)   = R(p, k1) with every R(c, k1/2), c in R(p, k1), of which two thirds or more
          lie in R(p, k1)                                                               (eq. 4)
V_pg    = exp(-d(p, g)) for g in R*(p), else 0                                          (eq. 7)
V_p    <- mean of V_i over p and its k2 - 1 nearest                                    (eq. 11)
d_J     = 1 - sum_g min(V_pg, V_qg) / sum_g max(V_pg, V_qg)                            (eq. 10)
d*      = (1 - w) d_J + w d                                                            (eq. 12)

Intended deviations: d is 1 - cosine, which lies on the scale of d_J (the authors' program divides
squared distances by their largest, so that one far crop changes every answer). Neighbours are
sought among the query and its candidates alone; with every row a candidate that is the published
method. Memory grows with candidates x k1, and with BLOCK x candidates for distances.
"""

from __future__ import annotations

from math import exp

import numpy as np
from numpy.typing import NDArray

from service.domain.rerank import CheckedRerank

__all__ = ["reranked"]

BLOCK = 128

Sparse = dict[int, float]


def reranked(
    vectors: NDArray[np.float32], scores: NDArray[np.float32], chosen: CheckedRerank
) -> NDArray[np.float64]:
    """The distance d* of every candidate to the query, float64 (N,).

    Args:
        vectors: Of the candidates as ranked, float32 (N, D), unit L2 norm.
        scores: Their scores with the query, (N,).
        chosen: k1, k2 and w.
    """
    count = len(vectors) + 1
    if count == 1:
        return np.empty(0)
    to_query = 1.0 - scores.astype(np.float64)
    nearest, distances = _neighbours(vectors, to_query, min(chosen.k1, count - 1))
    encoded = _encodings(nearest, distances, to_query, vectors, chosen.k1)
    expanded = [
        _mean([encoded[row] for row in near[: chosen.k2]]) if chosen.k2 > 1 else encoded[place]
        for place, near in enumerate(nearest)
    ]
    jaccard = np.array([_jaccard(expanded[0], other) for other in expanded[1:]])
    weight = chosen.original_weight
    mixed: NDArray[np.float64] = (1.0 - weight) * jaccard + weight * to_query
    return mixed


def _neighbours(
    vectors: NDArray[np.float32], to_query: NDArray[np.float64], k: int
) -> tuple[list[list[int]], list[list[float]]]:
    """N(p, k) of every point, itself first, and the distances; the query is point 0."""
    wide = vectors.astype(np.float64)
    order = np.argsort(to_query, kind="stable")[:k]
    nearest = [[0, *(order + 1).tolist()]]
    distances = [[0.0, *to_query[order].tolist()]]
    for start in range(0, len(wide), BLOCK):
        stop = min(start + BLOCK, len(wide))
        block = np.empty((stop - start, len(wide) + 1))
        block[:, 0] = to_query[start:stop]
        block[:, 1:] = 1.0 - wide[start:stop] @ wide.T
        # Itself first, whatever rounding says and however many are equal to it.
        block[np.arange(stop - start), np.arange(start, stop) + 1] = -np.inf
        order = np.argsort(block, axis=1, kind="stable")[:, : k + 1]
        found = np.take_along_axis(block, order, axis=1)
        found[:, 0] = 0.0
        nearest += order.tolist()
        distances += found.tolist()
    return nearest, distances


def _encodings(
    nearest: list[list[int]],
    distances: list[list[float]],
    to_query: NDArray[np.float64],
    vectors: NDArray[np.float32],
    k1: int,
) -> list[Sparse]:
    """V of every point."""
    whole = _reciprocal(nearest, k1)
    half = _reciprocal(nearest, max(1, round(k1 / 2)))
    encoded = []
    for place, own in enumerate(whole):
        members = set(own)
        for candidate in own:
            other = half[candidate]
            if 3 * len(own & other) >= 2 * len(other):
                members |= other
        known = dict(zip(nearest[place], distances[place], strict=True))
        encoded.append(
            {
                member: exp(-known[member])
                if member in known
                else exp(-_distance(place, member, to_query, vectors))
                for member in members
            }
        )
    return encoded


def _reciprocal(nearest: list[list[int]], k: int) -> list[set[int]]:
    near = [set(row[: k + 1]) for row in nearest]
    return [{other for other in row if place in near[other]} for place, row in enumerate(near)]


def _distance(
    one: int, other: int, to_query: NDArray[np.float64], vectors: NDArray[np.float32]
) -> float:
    """Between two points, one of which may be the query, 0."""
    if 0 in (one, other):
        return float(to_query[max(one, other) - 1])
    pair = vectors[[one - 1, other - 1]].astype(np.float64)
    return 1.0 - float(pair[0] @ pair[1])


def _mean(rows: list[Sparse]) -> Sparse:
    total: Sparse = {}
    for row in rows:
        for place, value in row.items():
            total[place] = total.get(place, 0.0) + value / len(rows)
    return total


def _jaccard(one: Sparse, other: Sparse) -> float:
    shared = sum(min(value, other[place]) for place, value in one.items() if place in other)
    return 1.0 - shared / (sum(one.values()) + sum(other.values()) - shared)
