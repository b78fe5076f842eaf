"""DBSCAN that keeps to what is known of the crops: tracks stay whole, conflicts stay apart.

With the units and conflicts of :mod:`adapt.clustering.constraints`, and distances compared in
float32 as in :mod:`adapt.clustering.dbscan`:

1. A pair of crops of one unit is at distance 0. A pair of conflicting units is no pair.
2. A crop with at least ``min_samples`` crops within ``eps``, itself and its unit included, is a
   core. A unit with a core is a core unit.
3. Core units joined by a pair of cores within ``eps`` share a cluster. Where that brings
   conflicting units together, the cluster is split: its pairs of cores are taken from the closest
   on (of equals, by the lower then the higher crop), and a pair joins its two parts only if no unit
   of one conflicts with any of the other.
4. Clusters are numbered by their first core. Units without a core follow in the order of their
   first crop: each joins the lowest-numbered cluster that has a core within ``eps`` of one of its
   crops and no conflict with it, counting those that joined before, or is left an outlier.

So labels never part a track and never join a conflict, and without either they are DBSCAN's. That
a track of ``min_samples`` crops is a cluster of its own follows from 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.constraints import Constraints, Units
from adapt.clustering.dbscan import checked_radius, dbscan
from adapt.clustering.graph import DistanceGraph
from adapt.clustering.unit_graph import (
    adopt_units,
    core_pairs,
    count_close,
    join_apart,
    join_units,
    mixed_components,
    number_clusters,
    roots_of,
)

__all__ = ["ConstrainedLabels", "constrained_dbscan", "labels_of"]


@dataclass(frozen=True)
class ConstrainedLabels:
    """Labels and what the constraints did to them.

    Attributes:
        labels: int32 (N,), clusters from 0, -1 for outliers.
        tracks: tracks of more than one crop.
        cut: pairs within ``eps`` that conflict.
        split: clusters that were split.
        turned_away: units without a core that some cluster within reach did not admit.
    """

    labels: NDArray[np.int32]
    tracks: int
    cut: int
    split: int
    turned_away: int

    @property
    def figures(self) -> dict[str, float]:
        """The counts, for a summary."""
        return {
            "tracks": float(self.tracks),
            "cannot_links_cut": float(self.cut),
            "clusters_split": float(self.split),
            "turned_away": float(self.turned_away),
        }


def constrained_dbscan(
    graph: DistanceGraph, *, eps: float, min_samples: int, constraints: Constraints
) -> ConstrainedLabels:
    """Labels by the rule above.

    Args:
        graph: complete up to its ``max_distance``.
        eps: radius, above 0 and at most ``graph.max_distance``.
        min_samples: crops within ``eps``, itself and its unit included, that make a core.
        constraints: of the graph's rows.

    Raises:
        InvalidArgument: ``eps`` beyond the graph, or ``min_samples`` below 1.
    """
    radius = checked_radius(graph, eps=eps, min_samples=min_samples)
    units = constraints.units
    degrees = units.sizes[units.of].astype(np.int64)
    cut = 0
    for block in graph.upper_blocks():
        cut += count_close(*block, radius, units, degrees)
    core = degrees >= min_samples
    core_units = np.zeros(units.sizes.size, dtype=np.bool_)
    core_units[units.of[core]] = True
    parents = np.arange(units.sizes.size, dtype=np.int32)
    borders = [
        join_units(*block, radius, core, core_units, units, parents)
        for block in graph.upper_blocks()
    ]
    roots = roots_of(parents)
    mixed = mixed_components(roots, np.lexsort((units.starts, roots)), units)
    if mixed.any():
        roots = _split(graph, radius, core, units, roots, mixed)
    labels, clusters = number_clusters(core, core_units, units, roots)
    reached = np.concatenate([np.empty((0, 2), dtype=np.int32), *borders])
    turned_away = adopt_units(_candidates(reached, labels), labels, clusters, units)
    return ConstrainedLabels(
        labels=labels[units.of],
        tracks=int(np.count_nonzero(units.sizes > 1)),
        cut=cut,
        split=int(np.count_nonzero(mixed)),
        turned_away=turned_away,
    )


def labels_of(
    graph: DistanceGraph, *, eps: float, min_samples: int, constraints: Constraints | None
) -> NDArray[np.int32]:
    """Labels int32 (N,) under ``constraints``, or DBSCAN's where there are none."""
    if constraints is None:
        return dbscan(graph, eps=eps, min_samples=min_samples)
    found = constrained_dbscan(graph, eps=eps, min_samples=min_samples, constraints=constraints)
    return found.labels


def _split(
    graph: DistanceGraph,
    radius: np.float32,
    core: NDArray[np.bool_],
    units: Units,
    roots: NDArray[np.int32],
    mixed: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Roots after taking the components marked ``mixed`` apart, and joining closest pairs first."""
    found = [
        core_pairs(*block, radius, core, units, roots, mixed) for block in graph.upper_blocks()
    ]
    left, right, distances = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((right, left, distances))
    inside = mixed[roots]
    parents = roots.copy()
    parents[inside] = np.flatnonzero(inside)
    join_apart(units.of[left[order]], units.of[right[order]], units, parents)
    return roots_of(parents)


def _candidates(reached: NDArray[np.int32], labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """(unit without a core, label within its reach), each once, in order."""
    pairs = np.stack([reached[:, 0], labels[reached[:, 1]]], axis=1)
    return np.ascontiguousarray(np.unique(pairs, axis=0), dtype=np.int32)
