"""Clusters within one camera: stage 1 of CALR (Li et al. 2024).

Exact k-reciprocal Jaccard distances of the camera's crops (``adapt.clustering.jaccard``), average
linkage (``adapt.clustering.linkage``), a cut, and the silhouette of the result, by which the best
epoch is known without labels (``adapt.clustering.silhouette``).

Intended deviations: the released code holds n x n distances. Here only pairs with J < 1 exist, and
the result is the same, except that

- clusters with nothing in common are never merged, even where fewer clusters were asked for;
- a camera with more than 512 pairs a crop (and more than 16 million; a pair takes about 50 bytes)
  has its furthest pairs counted as J = 1, beyond the largest radius whose pairs fit;
- where not even the pairs up to J = 0.5 fit (thousands of equal crops), crops connected by those
  pairs are a cluster.

Each of the three is reported.

Silhouettes of two epochs are of distances on one scale: J counts shared neighbours and not how far
they are, of the same crops and sizes of neighbourhood. What differs is how far the graph of an
epoch reaches, and pairs that count as 1 for want of room raise the silhouette. So a labelling has
one for its own radius and one for each narrower, and two are compared at the narrower of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads
from adapt.clustering.dbscan import dbscan
from adapt.clustering.graph import SparseDistances
from adapt.clustering.jaccard import jaccard_graph
from adapt.clustering.linkage import Dendrogram, average_linkage
from adapt.clustering.neighbours import Neighbours, nearest
from adapt.clustering.silhouette import WORST, silhouette
from adapt.training.calr_settings import CalrSettings, LocalClusterSettings

__all__ = ["LocalClusters", "local_clusters", "too_few"]

# Below 1 by one float32: the graph then holds every pair with anything in common.
_ALL = float(np.nextafter(np.float32(1.0), np.float32(0.0)))
_RADII = (_ALL, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
_PAIRS_PER_CROP = 512
_LEAST_PAIRS = 1 << 24


@dataclass(frozen=True)
class LocalClusters:
    """Clusters of one camera.

    Attributes:
        labels: (n,) int64, 0..count-1; every crop is in a cluster.
        silhouettes: Mean silhouette of the labels where pairs count as 1 beyond the radius of the
            graph, and beyond each narrower one down to 0.5; empty where there is no graph.
        notes: Degradations, in words.
    """

    labels: NDArray[np.int64]
    silhouettes: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def silhouette(self) -> float:
        """The mean silhouette on all the graph, -1 where it is not known."""
        return self.silhouettes[0] if self.silhouettes else WORST

    def better_than(self, other: LocalClusters) -> bool:
        """Whether the silhouette is higher, both on no more than either graph has."""
        common = min(len(self.silhouettes), len(other.silhouettes))
        if not common:
            return len(self.silhouettes) > len(other.silhouettes)
        return self.silhouettes[-common] > other.silhouettes[-common]

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.labels.max(initial=-1)) + 1


def too_few(crops: int, settings: CalrSettings) -> str | None:
    """Why a camera of so many crops cannot be clustered, or None where it can.

    Its crops are one local cluster then: without evidence that two differ none is refined away
    (and of 5 to 9 crops the released rule makes one).
    """
    cut = settings.local_clusters
    if crops <= settings.intra_k2:
        return f"{crops} crops are no more than intra_k2={settings.intra_k2}"
    if cut.mode == "ratio" and _wanted(crops, cut) < 2:
        return f"{crops} crops in the ratio of {cut.value:g} make fewer than 2 local clusters"
    if cut.mode == "count" and crops <= cut.value:
        return f"{crops} crops are no more than the {cut.value:g} local clusters asked for"
    return None


def local_clusters(
    features: NDArray[np.float32],
    settings: CalrSettings,
    *,
    threads: int | None = None,
    max_pairs: int | None = None,
) -> LocalClusters:
    """Clusters ``features`` (n, D), unit rows of one camera that is not ``too_few``.

    Args:
        threads: Default every core.
        max_pairs: Pairs to hold at most, by default 512 a crop and at least 16 million; see the
            module for what happens beyond.
    """
    threads = threads or available_threads()
    neighbours = nearest(features, settings.intra_k1, threads=threads)
    limit = max_pairs or max(_LEAST_PAIRS, _PAIRS_PER_CROP * len(features))
    found, radius = _graph(features, neighbours, settings, threads, limit)
    if isinstance(found, SparseDistances):
        notes = []
        if radius != _ALL:
            notes.append(f"more than {limit} pairs: those further than {radius} count as 1")
        dendrogram = average_linkage(found)
        labels = _cut(dendrogram, settings.local_clusters)
        if settings.local_clusters.mode != "distance":
            wanted = _wanted(len(features), settings.local_clusters)
            if dendrogram.components > wanted:
                notes.append(
                    f"{dendrogram.components} groups of crops have nothing in common:"
                    f" {wanted} local clusters were asked for"
                )
        return LocalClusters(labels, _silhouettes(found, labels, radius), tuple(notes))
    note = f"more than {limit} pairs within {radius}: crops that these connect are a local cluster"
    return LocalClusters(found.astype(np.int64), (), (note,))


def _graph(
    features: NDArray[np.float32],
    neighbours: Neighbours,
    settings: CalrSettings,
    threads: int,
    limit: int,
) -> tuple[SparseDistances | NDArray[np.int32], float]:
    """The graph of the widest radius that fits, or else the components of the narrowest."""
    for radius in _RADII:
        graph = jaccard_graph(
            neighbours,
            features=features,
            max_distance=radius,
            k1=settings.intra_k1,
            k2=settings.intra_k2,
            threads=threads,
            max_pairs=limit,
        )
        if isinstance(graph, SparseDistances):
            return graph, radius
    return dbscan(graph, eps=radius, min_samples=1), radius


def _silhouettes(
    graph: SparseDistances, labels: NDArray[np.int64], radius: float
) -> tuple[float, ...]:
    found = [silhouette(graph, labels)]
    for narrower in _RADII[_RADII.index(radius) + 1 :]:
        distances = np.where(graph.distances <= narrower, graph.distances, np.float32(1.0))
        found.append(silhouette(replace(graph, distances=distances), labels))
    return tuple(found)


def _wanted(crops: int, cut: LocalClusterSettings) -> int:
    # A ratio such as 0.2 is no binary fraction: 0.29 * 100 must still be 29.
    return int(cut.value) if cut.mode == "count" else int(crops * cut.value + 1e-9)


def _cut(dendrogram: Dendrogram, cut: LocalClusterSettings) -> NDArray[np.int64]:
    if cut.mode == "distance":
        return dendrogram.cut_at_distance(cut.value).astype(np.int64)
    return dendrogram.cut_at_count(_wanted(dendrogram.rows, cut)).astype(np.int64)
