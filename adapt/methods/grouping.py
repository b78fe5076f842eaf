"""Pseudo-labels from features: what every method that clusters asks of ``adapt.clustering``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.cluster import ClusterResult, cluster
from adapt.clustering.settings import ClusterSettings
from adapt.training.config import RunConfig
from resight.errors import FailedPrecondition

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
    """Clusters ``features`` (N, D), unit rows; the graph reaches to ``eps + gap``.

    Raises:
        FailedPrecondition: The distance needs cameras and the run has none.
    """
    if config.distance == "ca-jaccard" and cameras is None:
        raise FailedPrecondition(
            "distance: ca-jaccard needs the camera of every crop, and this run is camera-free; name"
            " a source with cameras or use distance=jaccard",
            field="distance",
            reason="NO_CAMERAS",
        )
    if config.camera_centering and cameras is not None:
        features = centre_by_camera(features, cameras)
    settings = ClusterSettings(
        distance=config.distance,
        k1=config.k1,
        k2=config.k2,
        k1_intra=config.k1_intra,
        k1_inter=config.k1_inter,
        k2_intra=config.k2_intra,
        k2_inter=config.k2_inter,
        eps=config.eps,
        min_samples=config.min_samples,
        gap=gap,
    )
    return cluster(features, settings, cameras=cameras, threads=config.threads or None)


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
