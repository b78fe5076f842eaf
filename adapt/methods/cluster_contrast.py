"""Cluster Contrast (Dai et al., ACCV 2022): one centroid a cluster, outliers left out.

Each epoch: features of all crops -> k-reciprocal Jaccard -> DBSCAN(eps, min_samples) -> a centroid
per cluster -> batches of P clusters x K crops -> InfoNCE against all centroids, whose equations and
update rule stand in ``adapt.memory.cluster``.

Intended deviations: the last epoch's encoder is kept (the released code keeps the best by test
mAP); camera ids are used by the sampler only when the run may use them; the backbone keeps the
pooling that its weights were trained with (``pooling=gem`` is the released default).
"""

from __future__ import annotations

import numpy as np

from adapt.methods.centroid_contrast import CentroidContrast
from adapt.methods.grouping import group, repetition, require_contrast
from adapt.methods.method import EpochLabels, Features, MethodState, StateValue

__all__ = ["ClusterContrast"]


class ClusterContrast(CentroidContrast):
    """The method ``cluster-contrast``."""

    name = "cluster-contrast"

    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:
        """Clusters the crops and rebuilds the centroids."""
        if features is None:
            raise ValueError("cluster-contrast extracts features every epoch")
        config = self._config
        found = group(features.vectors, config, self._cameras, constraints=self._constraints)
        classes = found.labels.astype(np.int64)
        count = found.clusters
        require_contrast(count, len(classes), epoch, config)
        self._remember(features, classes, count, config.cluster_contrast.memory_update)
        return EpochLabels.counted(
            classes,
            count,
            seconds=found.seconds,
            notes=[*found.notes, *repetition(count, config)],
            extra=found.figures,
        )

    def state_dict(self) -> dict[str, StateValue]:
        """The centroids, for the record: the next epoch builds its own."""
        return {"centroids": None if self._memory is None else self._memory.vectors}

    def load_state_dict(self, state: MethodState) -> None:
        """Nothing of one epoch's memory enters the next."""
