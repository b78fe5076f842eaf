"""Weights of clusters by how evenly cameras see them: CALR (Li et al. 2024).

With p_ck the share of camera k in cluster c::

    H_c = - sum over k of p_ck ln p_ck        w_c = max(ln(1 + H_c), floor)

The loss is the mean weighted by class, sum of w_y l / sum of w_y.

Intended deviation: the floor. A cluster of a single camera has H_c = 0, and a batch of nothing else
is 0/0 in the released code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["camera_entropy", "entropy_weights"]


def camera_entropy(
    labels: NDArray[np.int64], cameras: NDArray[np.int32], count: int
) -> NDArray[np.float64]:
    """H_c of clusters 0..count-1, (count,), in nats; 0 for an empty one.

    Args:
        labels: (N,) cluster, -1 = outlier.
        cameras: (N,) camera codes from 0.
    """
    kept = labels >= 0
    span = int(cameras.max(initial=0)) + 1
    pairs, sizes = np.unique(labels[kept] * span + cameras[kept], return_counts=True)
    clusters = pairs // span
    share = sizes / np.bincount(labels[kept], minlength=count)[clusters]
    entropy = np.zeros(count)
    np.add.at(entropy, clusters, -share * np.log(share))
    return entropy


def entropy_weights(entropy: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """w_c for H_c, both (count,)."""
    return np.maximum(np.log1p(entropy), floor)
