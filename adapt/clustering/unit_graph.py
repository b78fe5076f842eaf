"""Compiled passes over the pairs of a graph, read as pairs of units; see ``constrained``.

The first arguments of those that read pairs are an ``UpperBlock``'s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.constraints import Units, conflict
from adapt.clustering.dbscan import root
from adapt.clustering.kernel import kernel

__all__ = [
    "adopt_units",
    "core_pairs",
    "count_close",
    "join_apart",
    "join_units",
    "mixed_components",
    "number_clusters",
    "roots_of",
]


@kernel
def count_close(
    first: int,
    counts: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    radius: np.float32,
    units: Units,
    degrees: NDArray[np.int64],
) -> int:
    """Add what is close to ``degrees``; the pairs cut because they conflict."""
    cut = 0
    at = 0
    for r in range(counts.shape[0]):
        u = units.of[first + r]
        for _ in range(counts[r]):
            v = units.of[indices[at]]
            if distances[at] <= radius and u != v:
                if conflict(u, v, units):
                    cut += 1
                else:
                    degrees[first + r] += 1
                    degrees[indices[at]] += 1
            at += 1
    return cut


@kernel
def join_units(
    first: int,
    counts: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    radius: np.float32,
    core: NDArray[np.bool_],
    core_units: NDArray[np.bool_],
    units: Units,
    parents: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Unite core units, lowest as root; return (unit without a core, core unit) pairs met."""
    reached = np.empty((64, 2), dtype=np.int32)
    size = 0
    at = 0
    for r in range(counts.shape[0]):
        i = first + r
        u = units.of[i]
        for _ in range(counts[r]):
            j = indices[at]
            v = units.of[j]
            close = distances[at] <= radius and u != v and (core[i] or core[j])
            at += 1
            if not close or conflict(u, v, units):
                continue
            if core[i] and core[j]:
                a = root(parents, u)
                b = root(parents, v)
                if a < b:
                    parents[b] = a
                else:
                    parents[a] = b
            elif not core_units[u] or not core_units[v]:
                if size == reached.shape[0]:
                    more = np.empty((2 * size, 2), dtype=np.int32)
                    more[:size] = reached
                    reached = more
                reached[size, 0] = v if core[i] else u
                reached[size, 1] = u if core[i] else v
                size += 1
    return reached[:size].copy()


@kernel
def roots_of(parents: NDArray[np.int32]) -> NDArray[np.int32]:
    """The root of every unit, where no unit's parent has a higher number."""
    roots = parents.copy()
    for u in range(roots.shape[0]):
        roots[u] = roots[roots[u]]
    return roots


@kernel
def mixed_components(
    roots: NDArray[np.int32],
    order: NDArray[np.int64],
    units: Units,
) -> NDArray[np.bool_]:
    """Marks the roots of components in which two units conflict."""
    mixed = np.zeros(roots.shape[0], dtype=np.bool_)
    for p in range(order.shape[0]):
        u = order[p]
        if units.starts[u] < 0 or mixed[roots[u]]:
            continue
        for q in range(p + 1, order.shape[0]):
            v = order[q]
            if roots[v] != roots[u] or units.starts[v] > units.ends[u] + units.within:
                break
            if conflict(u, v, units):
                mixed[roots[u]] = True
                break
    return mixed


@kernel
def core_pairs(
    first: int,
    counts: NDArray[np.int64],
    indices: NDArray[np.int32],
    distances: NDArray[np.float32],
    radius: np.float32,
    core: NDArray[np.bool_],
    units: Units,
    roots: NDArray[np.int32],
    mixed: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """The pairs of cores that are close, in components marked ``mixed``."""
    left = np.empty(indices.shape[0], dtype=np.int32)
    right = np.empty(indices.shape[0], dtype=np.int32)
    apart_by = np.empty(indices.shape[0], dtype=np.float32)
    size = 0
    at = 0
    for r in range(counts.shape[0]):
        i = first + r
        u = units.of[i]
        for _ in range(counts[r]):
            j = indices[at]
            v = units.of[j]
            if (
                distances[at] <= radius
                and u != v
                and core[i]
                and core[j]
                and mixed[roots[u]]
                and not conflict(u, v, units)
            ):
                left[size] = i
                right[size] = j
                apart_by[size] = distances[at]
                size += 1
            at += 1
    return left[:size].copy(), right[:size].copy(), apart_by[:size].copy()


@kernel
def join_apart(
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    units: Units,
    parents: NDArray[np.int32],
) -> None:
    """Unite the units of each pair in turn, unless a unit of one side conflicts with the other."""
    following = np.full(parents.shape[0], -1, dtype=np.int32)
    last = np.arange(parents.shape[0]).astype(np.int32)
    for p in range(left.shape[0]):
        a = root(parents, left[p])
        b = root(parents, right[p])
        if a == b:
            continue
        if b < a:
            a, b = b, a
        u = a
        free = True
        while u >= 0 and free:
            v = b
            while v >= 0:
                if conflict(u, v, units):
                    free = False
                    break
                v = following[v]
            u = following[u]
        if free:
            parents[b] = a
            following[last[a]] = b
            last[a] = last[b]


@kernel
def number_clusters(
    core: NDArray[np.bool_],
    core_units: NDArray[np.bool_],
    units: Units,
    roots: NDArray[np.int32],
) -> tuple[NDArray[np.int32], int]:
    """Labels of the units, -1 for those without a core, and the number of clusters."""
    numbers = np.full(roots.shape[0], -1, dtype=np.int32)
    clusters = 0
    for i in range(core.shape[0]):
        if core[i]:
            top = roots[units.of[i]]
            if numbers[top] < 0:
                numbers[top] = clusters
                clusters += 1
    labels = np.full(roots.shape[0], -1, dtype=np.int32)
    for u in range(roots.shape[0]):
        if core_units[u]:
            labels[u] = numbers[roots[u]]
    return labels, clusters


@kernel
def adopt_units(
    candidates: NDArray[np.int32],
    labels: NDArray[np.int32],
    clusters: int,
    units: Units,
) -> int:
    """Give units without a core the first candidate that admits them; how many were refused any."""
    head = np.full(clusters, -1, dtype=np.int32)
    following = np.full(labels.shape[0], -1, dtype=np.int32)
    for u in range(labels.shape[0]):
        if labels[u] >= 0:
            following[u] = head[labels[u]]
            head[labels[u]] = u
    turned_away = 0
    last = -1
    for p in range(candidates.shape[0]):
        u = candidates[p, 0]
        label = candidates[p, 1]
        if labels[u] >= 0:
            continue
        v = head[label]
        while v >= 0 and not conflict(u, v, units):
            v = following[v]
        if v < 0:
            labels[u] = label
            following[u] = head[label]
            head[label] = u
        elif u != last:
            turned_away += 1
            last = u
    return turned_away
