"""What a clustering gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.constrained import ConstrainedLabels, labels_of
from adapt.clustering.constraints import Constraints
from adapt.clustering.graph import DistanceGraph
from adapt.clustering.neighbours import CameraNeighbours, Neighbours
from adapt.clustering.radius import RadiusChoice
from adapt.clustering.settings import ClusterSettings

__all__ = ["ClusterResult"]


@dataclass(frozen=True)
class ClusterResult:
    """Pseudo-labels and what they were made from.

    Attributes:
        labels: int32 (N,), clusters from 0, -1 for outliers.
        eps: the radius; the one chosen where ``settings.eps`` is ``auto``.
        graph: every pair within ``eps + settings.gap``.
        neighbours: the neighbour lists; two of them with ``ca-jaccard``.
        settings: as asked.
        entries: non-zeros of the sparse encodings V, which time and memory follow.
        seconds: wall time of ``compile`` (first call of a process only), ``neighbours``,
            ``jaccard``, ``radius`` (where it is chosen), ``dbscan`` and ``total`` (without
            ``compile``).
        radius: what ``eps`` was chosen by, where it was.
        constraints: what the labels keep to, where something was known.
        constrained: what that changed.
        notes: what a reader of the labels should know, such as fewer crops than k1.
    """

    labels: NDArray[np.int32]
    eps: float
    graph: DistanceGraph
    neighbours: Neighbours | CameraNeighbours
    settings: ClusterSettings
    entries: int
    seconds: dict[str, float]
    radius: RadiusChoice | None = None
    constraints: Constraints | None = None
    constrained: ConstrainedLabels | None = None
    notes: tuple[str, ...] = ()

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def outliers(self) -> int:
        """Number of crops in no cluster."""
        return int(np.count_nonzero(self.labels < 0))

    @property
    def largest(self) -> int:
        """Crops of the largest cluster, 0 without clusters."""
        return int(np.bincount(self.labels[self.labels >= 0], minlength=1).max())

    @property
    def figures(self) -> dict[str, float]:
        """What was decided on the way, in numbers."""
        figures = dict(self.radius.figures) if self.radius is not None else {}
        if self.neighbours.recall < 1.0:
            figures["neighbour_recall"] = self.neighbours.recall
        if self.constrained is not None:
            figures |= self.constrained.figures
        return figures

    def labels_at(self, eps: float) -> NDArray[np.int32]:
        """Labels at another radius, at most ``eps + settings.gap``, from the same graph.

        Raises:
            InvalidArgument: ``eps`` beyond the graph.
        """
        return labels_of(
            self.graph, eps=eps, min_samples=self.settings.min_samples, constraints=self.constraints
        )
