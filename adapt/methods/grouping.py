"""Pseudo-labels from features: what every method that clusters asks of ``adapt.clustering``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.cluster import ClusterResult, cluster
from adapt.clustering.settings import ClusterSettings
from adapt.training.config import RunConfig
from resight.errors import FailedPrecondition

__all__ = ["centre_by_camera", "group", "require_contrast"]

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


def require_contrast(clusters: int, crops: int, epoch: int, config: RunConfig) -> None:
    """Refuses what a method that leaves outliers out cannot learn from.

    Raises:
        FailedPrecondition: Fewer than two clusters.
    """
    if clusters >= 2:
        return
    where = f"epoch {epoch + 1}: of {crops} crops"
    if clusters == 0:
        raise FailedPrecondition(
            f"{where} all are outliers (eps={config.eps}, min_samples={config.min_samples}): give"
            " more crops of each person, raise eps, lower min_samples, or start from an encoder"
            " trained on persons (--init)",
            field="eps",
            reason="NO_CLUSTERS",
        )
    raise FailedPrecondition(
        f"{where} the clustered ones form a single cluster, so there is nothing to contrast: the"
        " crops may all be alike; otherwise lower eps or start from another encoder (--init)",
        field="eps",
        reason="ONE_CLUSTER",
    )
