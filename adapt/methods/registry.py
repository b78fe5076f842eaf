"""Methods by name."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adapt.clustering.constraints import Constraints
from adapt.methods.bn_stats import BatchNormStatistics
from adapt.methods.calr import Calr
from adapt.methods.cap import Cap
from adapt.methods.cluster_contrast import ClusterContrast
from adapt.methods.grouping import require_cameras
from adapt.methods.method import Method
from adapt.methods.pplr import Pplr
from adapt.methods.spcl import Spcl
from adapt.training.config import RunConfig

__all__ = ["create_method"]


def create_method(
    config: RunConfig,
    cameras: NDArray[np.int32] | None,
    device: torch.device,
    constraints: Constraints | None = None,
) -> Method:
    """The method that ``config.method`` names, for crops with ``cameras`` (N,) or None.

    Clusters keep to ``constraints`` of the same crops.

    Raises:
        FailedPrecondition: It, or its distance, needs cameras and there are none.
    """
    if config.method != "bn-stats":
        require_cameras(config, cameras)
    if config.method == "spcl":
        return Spcl(config, cameras, device, constraints)
    if config.method == "calr":
        return Calr(config, cameras, device, constraints)
    if config.method == "pplr":
        return Pplr(config, cameras, device, constraints)
    if config.method == "cap":
        return Cap(config, cameras, device, constraints)
    if config.method == "bn-stats":
        return BatchNormStatistics()
    return ClusterContrast(config, cameras, device, constraints)
