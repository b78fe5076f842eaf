"""DBSCAN over a graph of close pairs.

Ester et al., KDD 1996, in the form of scikit-learn: a row with at least ``min_samples`` rows
within ``eps``, itself included, is a core; cores within ``eps`` of each other share a cluster;
clusters are numbered by their first core in index order; a row that is no core joins the
lowest-numbered cluster among the cores within ``eps`` (the first that scikit-learn's traversal
reaches it from), or is an outlier, -1. Distances are compared with ``eps`` in float32.

Time is linear in the pairs; memory is O(N min_samples): a row that is no core has fewer than
``min_samples`` neighbours, and only those are remembered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.graph import DistanceGraph
from adapt.clustering.kernel import kernel
from resight.errors import InvalidArgument

__all__ = ["checked_radius", "dbscan", "root"]


def dbscan(graph: DistanceGraph, *, eps: float, min_samples: int) -> NDArray[np.int32]:
    """Cluster labels of the graph's rows.

    Args:
        graph: complete up to its ``max_distance``.
        eps: radius, above 0 and at most ``graph.max_distance``.
        min_samples: rows within ``eps``, itself included, that make a core.

    Returns:
        int32 (N,): cluster numbers from 0, -1 for outliers.

    Raises:
        InvalidArgument: ``eps`` beyond the graph, or ``min_samples`` below 1.
    """
    radius = checked_radius(graph, eps=eps, min_samples=min_samples)
    degrees = np.ones(graph.rows, dtype=np.int64)
    for block in graph.upper_blocks():
        _count_close(*block, radius, degrees)
    core = degrees >= min_samples
    parents = np.arange(graph.rows, dtype=np.int32)
    borders = [_join(*block, radius, core, parents) for block in graph.upper_blocks()]
    labels = _number(core, parents)
    for pairs in borders:
        _adopt(pairs, labels)
    return labels


def checked_radius(graph: DistanceGraph, *, eps: float, min_samples: int) -> np.float32:
    """``eps`` in the precision in which distances are compared.

    Raises:
        InvalidArgument: see :func:`dbscan`.
    """
    radius = np.float32(eps)
    if not 0.0 < radius <= np.float32(graph.max_distance):
        raise InvalidArgument(
            f"eps: is {eps}; the graph holds pairs up to {graph.max_distance}, build it wider",
            field="eps",
        )
    if min_samples < 1:
        raise InvalidArgument(
            f"min_samples: is {min_samples}; it must be at least 1", field="min_samples"
        )
    return radius


@kernel
def _count_close(
    first: int,
    counts: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    radius: np.float32,
    degrees: NDArray[np.int64],
) -> None:
    at = 0
    for r in range(counts.shape[0]):
        for _ in range(counts[r]):
            if distances[at] <= radius:
                degrees[first + r] += 1
                degrees[indices[at]] += 1
            at += 1


@kernel
def root(parents: NDArray[np.int32], i: int) -> int:
    """Compiled: the root of row ``i`` in a forest, shortening the way there."""
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@kernel
def _join(
    first: int,
    counts: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    radius: np.float32,
    core: NDArray[np.bool_],
    parents: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Unite cores, lowest index as root; return the (border, core) pairs met, int32 (P, 2)."""
    wanted = 0
    at = 0
    for r in range(counts.shape[0]):
        i = first + r
        for _ in range(counts[r]):
            j = indices[at]
            if distances[at] <= radius:
                if core[i] and core[j]:
                    a = root(parents, i)
                    b = root(parents, j)
                    if a < b:
                        parents[b] = a
                    else:
                        parents[a] = b
                elif core[i] or core[j]:
                    wanted += 1
            at += 1
    pairs = np.empty((wanted, 2), dtype=np.int32)
    wanted = 0
    at = 0
    for r in range(counts.shape[0]):
        i = first + r
        for _ in range(counts[r]):
            j = indices[at]
            if distances[at] <= radius and core[i] != core[j]:
                pairs[wanted, 0] = j if core[i] else i
                pairs[wanted, 1] = i if core[i] else j
                wanted += 1
            at += 1
    return pairs


@kernel
def _number(core: NDArray[np.bool_], parents: NDArray[np.int32]) -> NDArray[np.int32]:
    labels = np.full(core.shape[0], -1, dtype=np.int32)
    clusters = 0
    for i in range(core.shape[0]):
        if core[i]:
            top = root(parents, i)
            if top == i:
                labels[i] = clusters
                clusters += 1
            else:
                labels[i] = labels[top]
    return labels


@kernel
def _adopt(pairs: NDArray[np.int32], labels: NDArray[np.int32]) -> None:
    for p in range(pairs.shape[0]):
        label = labels[pairs[p, 1]]
        if labels[pairs[p, 0]] < 0 or label < labels[pairs[p, 0]]:
            labels[pairs[p, 0]] = label
