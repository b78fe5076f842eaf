"""What methods share that contrast with one centroid a cluster (``adapt.memory.cluster``)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.memory.cluster import ClusterMemory
from adapt.methods.clustering_method import ClusteringMethod
from adapt.methods.method import Batch, Features

__all__ = ["CentroidContrast"]


class CentroidContrast(ClusteringMethod):
    """A method whose memory is made anew each epoch from features and clusters."""

    _memory: ClusterMemory | None = None

    def wants_features(self, epoch: int) -> bool:  # noqa: ARG002
        """Every epoch."""
        return True

    def loss(self, batch: Batch) -> Tensor:
        """InfoNCE against the centroids."""
        return self._ready().loss(batch.features, batch.classes)

    def logits(self, batch: Batch) -> Tensor:
        """Similarity to the centroids over the temperature."""
        return self._ready().logits(batch.features)

    def update(self, batch: Batch) -> None:
        """Moves the centroids."""
        self._ready().update(batch.features, batch.classes)

    def _remember(
        self,
        features: Features,
        classes: NDArray[np.int64],
        count: int,
        update: Literal["mean", "hard"] = "mean",
    ) -> None:
        """Makes the centroids of ``classes`` (N,), 0..count-1 or negative for none."""
        self._memory = ClusterMemory(
            torch.from_numpy(features.vectors).to(self._device),
            torch.from_numpy(classes).to(self._device),
            count,
            temperature=self._config.temperature,
            momentum=self._config.momentum,
            update=update,
        )

    def _ready(self) -> ClusterMemory:
        if self._memory is None:
            raise ValueError("prepare_epoch comes first")
        return self._memory
