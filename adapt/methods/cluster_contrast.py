"""Cluster Contrast (Dai et al., ACCV 2022): one centroid a cluster, outliers left out.

Each epoch: features of all crops -> k-reciprocal Jaccard -> DBSCAN(eps, min_samples) -> a centroid
per cluster -> batches of P clusters x K crops -> InfoNCE against all centroids, whose equations and
update rule stand in ``adapt.memory.cluster``.

Intended deviations: the last epoch's encoder is kept (the released code keeps the best by test
mAP); camera ids are used by the sampler only when the run may use them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.clustering.constraints import Constraints
from adapt.memory.cluster import ClusterMemory
from adapt.methods.grouping import group, require_contrast
from adapt.methods.method import Batch, EpochLabels, Features, Method, MethodState, StateValue
from adapt.training.config import RunConfig

__all__ = ["ClusterContrast"]


class ClusterContrast(Method):
    """The method ``cluster-contrast``."""

    name = "cluster-contrast"

    def __init__(
        self,
        config: RunConfig,
        cameras: NDArray[np.int32] | None,
        device: torch.device,
        constraints: Constraints | None = None,
    ) -> None:
        self._config = config
        self._cameras = cameras
        self._constraints = constraints
        self._device = device
        self._memory: ClusterMemory | None = None

    def wants_features(self, epoch: int) -> bool:  # noqa: ARG002
        """Every epoch."""
        return True

    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:
        """Clusters the crops and rebuilds the centroids."""
        if features is None:
            raise ValueError("cluster-contrast extracts features every epoch")
        config = self._config
        found = group(features.vectors, config, self._cameras, constraints=self._constraints)
        classes = found.labels.astype(np.int64)
        count = found.clusters
        require_contrast(count, len(classes), epoch, config)
        self._memory = ClusterMemory(
            torch.from_numpy(features.vectors).to(self._device),
            torch.from_numpy(classes).to(self._device),
            count,
            temperature=config.temperature,
            momentum=config.momentum,
            update=config.cluster_contrast.memory_update,
        )
        notes = [*found.notes]
        if count < config.p:
            notes.append(f"{count} clusters are fewer than p={config.p}: batches repeat clusters")
        return EpochLabels(
            classes=classes,
            count=count,
            clusters=count,
            outliers=found.outliers,
            largest=found.largest,
            seconds=found.seconds,
            notes=tuple(notes),
            extra=found.figures,
        )

    def loss(self, batch: Batch) -> Tensor:
        """InfoNCE against the centroids."""
        return self._ready().loss(batch.features, batch.classes)

    def logits(self, batch: Batch) -> Tensor:
        """Similarity to the centroids over the temperature."""
        return self._ready().logits(batch.features)

    def update(self, batch: Batch) -> None:
        """Moves the centroids."""
        self._ready().update(batch.features, batch.classes)

    def state_dict(self) -> dict[str, StateValue]:
        """The centroids, for the record: the next epoch builds its own."""
        return {"centroids": None if self._memory is None else self._memory.vectors}

    def load_state_dict(self, state: MethodState) -> None:
        """Nothing of one epoch's memory enters the next."""

    def _ready(self) -> ClusterMemory:
        if self._memory is None:
            raise ValueError("prepare_epoch comes first")
        return self._memory
