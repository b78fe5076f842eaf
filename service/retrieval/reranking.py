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
squared distances by their largest, so that one far crop changes every answer). V is as in eq. 7 and
two thirds are enough: the program also scales each V to a sum of one and asks for more than two
thirds, which the paper does not say. Neighbours are sought among the query and its candidates
alone; with every row a candidate that is the published method.

Only V_p on the places where V_q is not zero, and the sum of V_p, enter eq. 10: for sums of
nonnegative numbers sum max = sum V_p + sum V_q - sum min. So averages are taken of those columns
alone. Memory grows with the members of R*, at most candidates x k1, and with BLOCK x candidates for
what is dense: distances, which are computed twice rather than kept, and sets as rows of booleans.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.domain.rerank import CheckedRerank

__all__ = ["reranked"]

BLOCK = 256

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


class _Neighbours(NamedTuple):
    """N(p, k) of every point, itself first, (n, k + 1), and which of them are in R(p, k)."""

    near: Places
    mutual: NDArray[np.bool_]


class _Encodings(NamedTuple):
    """V, row after row: row p is ``starts[p]`` to ``starts[p + 1]`` of columns and values."""

    starts: Places
    columns: Places
    values: Floats

    def rows(self, wanted: Places) -> tuple[Places, Places]:
        """Where the entries of these rows lie, and the place in ``wanted`` of each."""
        lengths = np.diff(self.starts)[wanted]
        ends = np.cumsum(lengths)
        shift = self.starts[wanted] - (ends - lengths)
        owner = np.repeat(np.arange(len(wanted)), lengths)
        return np.arange(len(owner)) + shift[owner], owner


class _Points:
    """The query, point 0, and its candidates as ranked."""

    def __init__(self, vectors: NDArray[np.float32], to_query: Floats) -> None:
        self._wide = vectors.astype(np.float64)
        self._to_query = to_query
        self.count = len(vectors) + 1

    def blocks(self) -> list[Places]:
        """The points, BLOCK at a time."""
        starts = range(0, self.count, BLOCK)
        return [np.arange(start, min(start + BLOCK, self.count)) for start in starts]

    def distances(self, points: Places) -> Floats:
        """d of a run of points to every point, (len(points), n); to itself 0."""
        found = np.empty((len(points), self.count))
        first = 1 if points[0] == 0 else 0
        if first:
            found[0, 1:] = self._to_query
        others = points[first:]
        found[first:, 0] = self._to_query[others - 1]
        if len(others):
            products = self._wide[others[0] - 1 : others[-1]] @ self._wide.T
            np.subtract(1.0, products, out=found[first:, 1:])
        found[np.arange(len(points)), points] = 0.0
        return found


def reranked(
    vectors: NDArray[np.float32], scores: NDArray[np.float32], chosen: CheckedRerank
) -> Floats:
    """The distance d* of every candidate to the query, float64 (N,).

    Args:
        vectors: Of the candidates as ranked, float32 (N, D), unit L2 norm.
        scores: Their scores with the query, (N,).
        chosen: k1, k2 and w.
    """
    if not len(vectors):
        return np.empty(0)
    to_query = 1.0 - scores.astype(np.float64)
    points = _Points(vectors, to_query)
    near = _nearest(points, min(chosen.k1, len(vectors)))
    whole = _reciprocal(near)
    half = _reciprocal(near[:, : max(1, round(chosen.k1 / 2)) + 1])
    jaccard = _jaccard(_encodings(points, whole, half), near[:, : chosen.k2])[1:]
    mixed: Floats = (1.0 - chosen.original_weight) * jaccard + chosen.original_weight * to_query
    return mixed


def _nearest(points: _Points, k: int) -> Places:
    """N(p, k) of every point, itself first, (n, k + 1)."""
    found = []
    for block in points.blocks():
        distances = points.distances(block)
        # Itself first, whatever rounding says and however many are equal to it.
        distances[np.arange(len(block)), block] = -np.inf
        found.append(_smallest(distances, k + 1))
    return np.concatenate(found)


def _smallest(values: Floats, count: int) -> Places:
    """The columns of the smallest values of each row, ascending, ties by column."""
    if count >= values.shape[1]:
        return np.argsort(values, axis=1, kind="stable")
    chosen = np.sort(np.argpartition(values, count - 1, axis=1)[:, :count], axis=1)
    last = np.take_along_axis(values, chosen, axis=1).max(axis=1, keepdims=True)
    # A partition takes any of those equal to the last.
    tied = np.count_nonzero(values <= last, axis=1) > count
    chosen[tied] = np.sort(np.argsort(values[tied], axis=1, kind="stable")[:, :count], axis=1)
    order = np.argsort(np.take_along_axis(values, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def _reciprocal(near: Places) -> _Neighbours:
    mutual = np.empty(near.shape, dtype=bool)
    for start in range(0, len(near), BLOCK):
        block = near[start : start + BLOCK]
        own = np.arange(start, start + len(block))
        mutual[start : start + BLOCK] = (near[block] == own[:, None, None]).any(axis=2)
    return _Neighbours(near, mutual)


def _encodings(points: _Points, whole: _Neighbours, half: _Neighbours) -> _Encodings:
    """V of every point before it is averaged."""
    sizes, columns, values = [], [], []
    for block in points.blocks():
        members = _expanded(whole, half, block)
        rows, found = np.nonzero(members)
        sizes.append(np.bincount(rows, minlength=len(block)))
        columns.append(found)
        values.append(np.exp(-points.distances(block)[rows, found]))
    ends = np.cumsum(np.concatenate(sizes))
    return _Encodings(np.append(0, ends), np.concatenate(columns), np.concatenate(values))


def _expanded(whole: _Neighbours, half: _Neighbours, block: Places) -> NDArray[np.bool_]:
    """R* of some points as rows of booleans, (len(block), n)."""
    own = np.zeros((len(block), len(whole.near)), dtype=bool)
    rows, places = np.nonzero(whole.mutual[block])
    candidates = whole.near[block][rows, places]
    own[rows, candidates] = True
    others, there = half.near[candidates], half.mutual[candidates]
    shared = np.count_nonzero(own[rows[:, None], others] & there, axis=1)
    taken = 3 * shared >= 2 * np.count_nonzero(there, axis=1)
    added = there & taken[:, None]
    own[np.broadcast_to(rows[:, None], added.shape)[added], others[added]] = True
    return own


def _jaccard(encodings: _Encodings, near: Places) -> Floats:
    """d_J of every point to the query, (n,); V averaged over ``near``."""
    count, averaged = near.shape
    entries, _ = encodings.rows(near[0])
    query = np.bincount(encodings.columns[entries], encodings.values[entries], count) / averaged
    support = np.flatnonzero(query)
    place_of = np.full(count, -1)
    place_of[support] = np.arange(len(support))
    row_of = np.repeat(np.arange(count), np.diff(encodings.starts))
    sums = np.bincount(row_of, encodings.values, count)[near].mean(axis=1)
    kept = place_of[encodings.columns] >= 0
    there = _Encodings(
        np.append(0, np.cumsum(np.bincount(row_of[kept], minlength=count))),
        place_of[encodings.columns[kept]],
        encodings.values[kept],
    )
    shared = np.empty(count)
    for start in range(0, count, BLOCK):
        block = near[start : start + BLOCK]
        entries, owner = there.rows(block.ravel())
        cells = (owner // averaged) * len(support) + there.columns[entries]
        table = np.bincount(cells, there.values[entries], len(block) * len(support)) / averaged
        least = np.minimum(table.reshape(len(block), len(support)), query[support])
        shared[start : start + BLOCK] = least.sum(axis=1)
    result: Floats = 1.0 - shared / (sums[0] + sums - shared)
    return result
