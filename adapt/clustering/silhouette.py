"""Mean silhouette over a sparse graph of distances in which an absent pair is at distance 1.

Equations (Rousseeuw, J. Comput. Appl. Math. 20, 1987), for row i of cluster A::

    a(i) = mean of d(i, j) over the other j of A
    b(i) = least over the other clusters B of the mean of d(i, j) over j in B
    s(i) = (b(i) - a(i)) / max(a(i), b(i)),    0 where A = {i} or a(i) = b(i) = 0

Only the pairs present are walked, in O(pairs); a cluster that i has no pair with lies at 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.graph import SparseDistances
from adapt.clustering.kernel import kernel

__all__ = ["WORST", "silhouette"]

WORST = -1.0


def silhouette(graph: SparseDistances, labels: NDArray[np.integer]) -> float:
    """Mean of s(i) for ``labels`` (N,), all of them clusters 0..C-1; between -1 and 1.

    Fewer than two clusters have no silhouette: the result is -1, the worst.
    """
    clusters = int(labels.max(initial=-1)) + 1
    if clusters < 2:
        return WORST
    wide = labels.astype(np.int64)
    sizes = np.bincount(wide, minlength=clusters)
    return float(_mean(graph.indptr, graph.indices, graph.distances, wide, sizes))


@kernel
def _mean(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    labels: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> float:
    rows = labels.shape[0]
    shared = np.zeros(sizes.shape[0], dtype=np.float64)
    met = np.empty(sizes.shape[0], dtype=np.int64)
    total = 0.0
    for i in range(rows):
        own = labels[i]
        if sizes[own] == 1:
            continue
        seen = 0
        for p in range(indptr[i], indptr[i + 1]):
            cluster = labels[indices[p]]
            weight = 1.0 - distances[p]
            if weight == 0.0:
                continue
            if shared[cluster] == 0.0:
                met[seen] = cluster
                seen += 1
            shared[cluster] += weight
        inside = 1.0 - shared[own] / (sizes[own] - 1)
        outside = 1.0
        for m in range(seen):
            cluster = met[m]
            if cluster != own:
                outside = min(outside, 1.0 - shared[cluster] / sizes[cluster])
            shared[cluster] = 0.0
        larger = max(inside, outside)
        if larger > 0.0:
            total += (outside - inside) / larger
    mean: float = total / rows
    return mean
