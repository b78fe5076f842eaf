"""Average linkage over a sparse graph of distances in which an absent pair is at distance 1.

Equations (Sokal and Michener 1958, "UPGMA"), with w(i, j) = 1 - d(i, j), 0 for absent pairs::

    d(A, B) = 1 - W(A, B) / (|A| |B|),    W(A, B) = sum over i in A, j in B of w(i, j)
    W(A u B, X) = W(A, X) + W(B, X)

So a cluster needs only the sums to the clusters it shares a pair with, and merging two clusters
joins their lists: memory is O(pairs), where the usual algorithm holds N x N distances. Closest
pairs are found by the nearest-neighbour chain (Murtagh, The Computer Journal 26, 1983), exact
because average linkage is reducible; a step costs the length of one list.

Clusters without a pair between them lie at distance 1, as far as two can: such merges would be
arbitrary and are not made. The dendrogram has one root for each connected component.

Intended deviations: none in exact arithmetic. Two candidates whose similarities differ by less
than one part in 10^9 count as equal, so that rounding cannot send the chain round in a circle;
equal candidates are taken by lowest index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.graph import SparseDistances
from adapt.clustering.kernel import kernel

__all__ = ["Dendrogram", "average_linkage"]

_SLACK = 1.0 + 1e-9


@dataclass(frozen=True)
class Dendrogram:
    """Merges in order of height.

    Attributes:
        rows: N.
        first, second: int32 (M,): a row of each of the two clusters merged; M = N - components.
        heights: float64 (M,), average distance at which they merged, not decreasing, below 1.
    """

    rows: int
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    heights: NDArray[np.float64]

    @property
    def components(self) -> int:
        """The fewest clusters that a cut can give."""
        return self.rows - len(self.heights)

    def cut_at_count(self, clusters: int) -> NDArray[np.int32]:
        """Labels (N,) of ``clusters`` clusters, or of ``components`` where that is more.

        Clusters are numbered by their first row.
        """
        return self._cut(self.rows - max(clusters, self.components))

    def cut_at_distance(self, distance: float) -> NDArray[np.int32]:
        """Labels (N,) after every merge of at most ``distance``."""
        return self._cut(int(np.searchsorted(self.heights, distance, side="right")))

    def _cut(self, merges: int) -> NDArray[np.int32]:
        return _labels(self.rows, self.first[: max(merges, 0)], self.second[: max(merges, 0)])


def average_linkage(graph: SparseDistances) -> Dendrogram:
    """The dendrogram of ``graph``, whose absent pairs are at distance 1.

    Memory beside the graph: 12 bytes for each direction of each pair.
    """
    rows = graph.rows
    first = np.empty(max(rows - 1, 0), dtype=np.int32)
    second = np.empty_like(first)
    heights = np.empty(len(first), dtype=np.float64)
    # Lists are shortened in place as clusters merge, so the graph's own must not be touched.
    weights = graph.distances.astype(np.float64)
    np.subtract(1.0, weights, out=weights)
    merges = _chain(graph.indptr, graph.indices.copy(), weights, first, second, heights)
    order = np.argsort(heights[:merges], kind="stable")
    return Dendrogram(rows, first[:merges][order], second[:merges][order], heights[:merges][order])


@kernel
def _root(parents: NDArray[np.int32], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@kernel
def _gather(
    a: int,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weights: NDArray[np.float64],
    used: NDArray[np.int64],
    following: NDArray[np.int32],
    last: NDArray[np.int32],
    parents: NDArray[np.int32],
    shared: NDArray[np.float64],
    met: NDArray[np.int32],
) -> int:
    """Sum cluster a's list by present cluster into ``shared`` and ``met``, and shorten the list.

    A cluster's list is a chain of segments, one for each row whose list it took over.
    """
    seen = 0
    segment = a
    while segment >= 0:
        for q in range(indptr[segment], indptr[segment] + used[segment]):
            # A pair at distance 1 is as good as absent, and 0 is how a cluster not met yet shows.
            if weights[q] <= 0.0:
                continue
            x = _root(parents, indices[q])
            if x == a:
                continue
            if shared[x] == 0.0:
                met[seen] = x
                seen += 1
            shared[x] += weights[q]
        segment = following[segment]
    written = 0
    segment = a
    while True:
        room = min(indptr[segment + 1] - indptr[segment], seen - written)
        for q in range(room):
            indices[indptr[segment] + q] = met[written + q]
            weights[indptr[segment] + q] = shared[met[written + q]]
        used[segment] = room
        written += room
        last[a] = segment
        if written == seen:
            break
        segment = following[segment]
    following[last[a]] = -1
    return seen


@kernel
def _chain(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weights: NDArray[np.float64],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    heights: NDArray[np.float64],
) -> int:
    """Merge until no two clusters share a pair; returns the number of merges written."""
    rows = indptr.shape[0] - 1
    parents = np.arange(rows).astype(np.int32)
    sizes = np.ones(rows, dtype=np.float64)
    height = np.zeros(rows, dtype=np.float64)
    used = indptr[1:] - indptr[:-1]
    following = np.full(rows, -1, dtype=np.int32)
    last = np.arange(rows).astype(np.int32)
    shared = np.zeros(rows, dtype=np.float64)
    met = np.empty(rows, dtype=np.int32)
    chain = np.empty(rows + 1, dtype=np.int32)
    length = 0
    start = 0
    merges = 0
    while True:
        if length == 0:
            while start < rows and parents[start] != start:
                start += 1
            if start == rows:
                break
            chain[0] = start
            length = 1
        a = chain[length - 1]
        seen = _gather(
            a, indptr, indices, weights, used, following, last, parents, shared, met
        )  # fmt: skip
        if seen == 0:  # a whole component; only ever at the bottom of the chain
            length = 0
            start += 1
            continue
        previous = chain[length - 2] if length > 1 else -1
        best = -1
        best_similarity = 0.0
        if previous >= 0:
            best = previous
            best_similarity = shared[previous] / (sizes[a] * sizes[previous]) * _SLACK
        for m in range(seen):
            x = met[m]
            similarity = shared[x] / (sizes[a] * sizes[x])
            shared[x] = 0.0
            if x == previous:
                continue
            if similarity > best_similarity or (
                similarity == best_similarity and best != previous and x < best
            ):
                best = x
                best_similarity = similarity
        if best != previous:
            chain[length] = best
            length += 1
            continue
        length -= 2
        b = previous
        if sizes[b] > sizes[a] or (sizes[b] == sizes[a] and b < a):
            a, b = b, a
        distance = 1.0 - best_similarity / _SLACK
        # Rounding must not put a merge below those it is made of.
        distance = max(distance, height[a], height[b])
        first[merges] = a
        second[merges] = b
        heights[merges] = distance
        merges += 1
        height[a] = distance
        sizes[a] += sizes[b]
        parents[b] = a
        following[last[a]] = b
        last[a] = last[b]
    return merges


@kernel
def _labels(rows: int, first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.int32]:
    parents = np.arange(rows).astype(np.int32)
    for m in range(first.shape[0]):
        a = _root(parents, first[m])
        b = _root(parents, second[m])
        if a < b:
            parents[b] = a
        else:
            parents[a] = b
    labels = np.full(rows, -1, dtype=np.int32)
    clusters = 0
    for i in range(rows):
        root = _root(parents, i)
        if root == i:
            labels[i] = clusters
            clusters += 1
        else:
            labels[i] = labels[root]
    return labels
