"""What methods share that cluster the crops themselves (``adapt.methods.grouping``)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adapt.clustering.constraints import Constraints
from adapt.methods.method import Method
from adapt.training.config import RunConfig

__all__ = ["ClusteringMethod"]


class ClusteringMethod(Method):
    """A method that clusters crops each epoch.

    Args:
        config: Of the run.
        cameras: (N,) int32 camera of each crop, or None.
        device: Where memories are kept.
        constraints: Of the same crops, kept by every cluster.
    """

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
