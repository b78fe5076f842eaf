"""Pseudo-labels from features: what every method that clusters asks of ``adapt.clustering``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.cluster import ClusterResult, ClusterSettings, cluster
from adapt.training.config import RunConfig

__all__ = ["centre_by_camera", "group"]

# Nearly identical everywhere, a feature less its camera's mean is rounding noise.
_NO_DIRECTION = 1e-6


def group(
    features: NDArray[np.float32],
    config: RunConfig,
    cameras: NDArray[np.int32] | None,
    *,
    gap: float = 0.0,
) -> ClusterResult:
    """Clusters ``features`` (N, D), unit rows; the graph reaches to ``eps + gap``."""
    if config.camera_centering and cameras is not None:
        features = centre_by_camera(features, cameras)
    settings = ClusterSettings(
        k1=config.k1, k2=config.k2, eps=config.eps, min_samples=config.min_samples, gap=gap
    )
    return cluster(features, settings, threads=config.threads or None)


def centre_by_camera(
    features: NDArray[np.float32], cameras: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Unit rows after taking each camera's mean off its crops, which removes part of its style.

    Args:
        features: (N, D) unit rows.
        cameras: (N,) camera codes.
    """
    centred = features.copy()
    for camera in np.unique(cameras):
        members = cameras == camera
        centred[members] -= centred[members].mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    # A crop equal to its camera's mean has no direction left: it keeps its own.
    directed = norms > _NO_DIRECTION
    return np.where(directed, centred / np.maximum(norms, _NO_DIRECTION), features)
