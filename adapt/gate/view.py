"""An encoder's view of the sample: neighbours, moments and clusters, each computed once.

With cameras, neighbours "across" are those in other cameras; without, all. Features are centred
for clustering, each crop's camera mean taken off and the rest made unit length, so that clusters do
not follow cameras.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.cluster import ClusterResult, ClusterSettings, cluster
from adapt.clustering.neighbours import nearest, nearest_by_camera
from adapt.gate.observation import Observation
from adapt.gate.sample import Sample

__all__ = ["NEIGHBOURS", "Lists", "View", "centred"]

NEIGHBOURS = 20
# Settings of the default method at these sample sizes; the graph reaches to every pair that shares
# a neighbour, for the silhouette.
_CLUSTERS = ClusterSettings(k1=20, eps=0.5, gap=0.49)
_LEAST_LENGTH = 1e-6


class Lists(NamedTuple):
    """Nearest crops of every crop, itself left out.

    Attributes:
        indices: int32 (N, k); -1 where there are fewer.
        similarities: float64 (N, k); 0 beside -1.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float64]


class View:
    """What the signals are computed from.

    Attributes:
        features: (N, D) float32, unit rows.
        copies: (M, D) float32, unit rows: changed copies of the first M crops.
        cameras: (N,) int32 or None.
        sample: What is known of the crops.
        threads: To compute with.
    """

    def __init__(self, observation: Observation, sample: Sample, *, threads: int) -> None:
        self.features = observation.features
        self.copies = observation.copies
        self.cameras = sample.cameras
        self.sample = sample
        self.threads = threads

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def plain(self) -> Lists:
        """Nearest of all crops."""
        found = nearest(self.features, min(NEIGHBOURS + 1, len(self)), threads=self.threads)
        return Lists(found.indices[:, 1:], found.similarities[:, 1:])

    @cached_property
    def across(self) -> Lists:
        """Nearest in other cameras; of all crops where cameras are not known."""
        return self.plain if self.cameras is None else self._across(self.features, self.cameras)

    @cached_property
    def centred_across(self) -> Lists:
        """The same of centred features."""
        if self.cameras is None:
            return self.across
        return self._across(self.centred, self.cameras)

    def _across(self, features: NDArray[np.float32], cameras: NDArray[np.int32]) -> Lists:
        found = nearest_by_camera(
            features, cameras, same=1, other=NEIGHBOURS, threads=self.threads
        ).other
        return Lists(found.indices, found.similarities)

    @cached_property
    def centred(self) -> NDArray[np.float32]:
        """(N, D) float32, unit rows: features less their camera's mean."""
        return centred(self.features, self.cameras)

    @cached_property
    def clusters(self) -> ClusterResult:
        """Clusters of the centred features."""
        return self.cluster(np.arange(len(self)))

    def cluster(self, rows: NDArray[np.int64]) -> ClusterResult:
        """Clusters of some rows alone."""
        return cluster(self.centred[rows], _CLUSTERS, threads=self.threads)

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the similarity of crops of different cameras.

        Without N x N products: sum over all pairs less that over pairs of one camera, where the sum
        of (f_i f_j) is |sum f|^2 and that of (f_i f_j)^2 is the squared Frobenius norm of F'F.
        """
        groups = np.arange(len(self)) if self.cameras is None else self.cameras
        first, second, pairs = _sums(self.features)
        if self.cameras is None:
            first, second, pairs = first - len(self), second - len(self), pairs - len(self)
        else:
            for group in np.unique(groups):
                own = _sums(self.features[groups == group])
                first, second, pairs = first - own[0], second - own[1], pairs - own[2]
        mean = first / pairs
        return mean, float(np.sqrt(max(0.0, second / pairs - mean * mean)))


def centred(
    features: NDArray[np.float32], cameras: NDArray[np.int32] | None
) -> NDArray[np.float32]:
    """Unit rows of ``features`` less the mean of their camera (of all, without cameras).

    A row that equals its mean keeps its uncentred direction.
    """
    groups = np.zeros(len(features), dtype=np.int32) if cameras is None else cameras
    shifted = features.astype(np.float64)
    for group in np.unique(groups):
        shifted[groups == group] -= shifted[groups == group].mean(axis=0)
    lengths = np.linalg.norm(shifted, axis=1, keepdims=True)
    kept = lengths[:, 0] < _LEAST_LENGTH
    shifted[kept], lengths[kept] = features[kept], 1.0
    result: NDArray[np.float32] = (shifted / lengths).astype(np.float32)
    return result


def _sums(features: NDArray[np.float32]) -> tuple[float, float, int]:
    rows = features.astype(np.float64)
    total = rows.sum(axis=0)
    square = rows.T @ rows
    return float(total @ total), float((square * square).sum()), len(rows) ** 2
