"""What the crops cluster into: Jaccard graph and DBSCAN of the centred features.

silhouette   mean over all crops of (b - a) / max(a, b) on the Jaccard distances (Rousseeuw
             1987), a crop in no cluster being one of its own and counting 0:     in [-1, 1]
clustered    share of the crops that are in a cluster:                             in [0, 1]
spanning     share of these whose cluster holds another camera's crops, too:       in [0, 1]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.graph import SparseDistances
from adapt.clustering.silhouette import silhouette as mean_silhouette
from adapt.gate.view import View

__all__ = ["clustered", "silhouette", "singled", "spanning"]


def silhouette(view: View) -> float | None:
    """The mean silhouette; None where too many crops are alike for the graph to be held."""
    graph = view.clusters.graph
    if not isinstance(graph, SparseDistances):
        return None
    return mean_silhouette(graph, singled(view.clusters.labels))


def clustered(view: View) -> float:
    """The share in clusters."""
    return 1.0 - view.clusters.outliers / max(1, len(view))


def spanning(view: View) -> float | None:
    """The share of clustered crops whose cluster spans cameras; None without cameras."""
    if view.cameras is None:
        return None
    labels = view.clusters.labels
    inside = labels >= 0
    if not inside.any():
        return 0.0
    pairs = np.unique(np.stack([labels[inside], view.cameras[inside]]), axis=1)
    cameras = np.bincount(pairs[0])
    return float((cameras[labels[inside]] > 1).mean())


def singled(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Labels (N,) with every crop in no cluster (-1) as a cluster of its own."""
    result = labels.astype(np.int64)
    alone = np.flatnonzero(result < 0)
    result[alone] = result.max(initial=-1) + 1 + np.arange(len(alone))
    return result
