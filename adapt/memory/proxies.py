"""Camera proxies: a cluster as seen by one camera (Wang et al., AAAI 2021).

Proxy a = (cluster, camera), for every pair that occurs:

    v_a = normalise(mean of f_j over the crops j of that cluster and camera)

Contrast of a feature f with positives P and the H most similar Q of its negatives:

    s_a = f . v_a / tau
    l   = - (1 / |P|) sum over a in P of log( exp(s_a) / sum over b in P u Q of exp(s_b) )

and 0 where P is empty. Where fewer than H negatives exist, Q is all of them (CAP's released code
then fills up with positives: intended deviation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adapt.memory.cluster import centroids

__all__ = ["CameraProxies", "proxy_contrast", "proxy_vectors"]


@dataclass(frozen=True)
class CameraProxies:
    """Which proxies there are.

    Attributes:
        slots: (N,) int64 proxy of each crop, 0..M-1 by cluster and then camera; -1 = none.
        clusters: (M,) int64 cluster of each proxy.
        cameras: (M,) int64 camera of each proxy.
    """

    slots: NDArray[np.int64]
    clusters: NDArray[np.int64]
    cameras: NDArray[np.int64]

    @classmethod
    def find(cls, classes: NDArray[np.int64], cameras: NDArray[np.integer] | None) -> CameraProxies:
        """Of ``classes`` (N,), negative for none, and ``cameras`` (N,).

        Without cameras every crop counts as of one, so that a proxy is a cluster.
        """
        codes = np.zeros_like(classes) if cameras is None else cameras.astype(np.int64)
        kept = np.flatnonzero(classes >= 0)
        pairs = np.stack([classes[kept], codes[kept]], axis=1)
        found, members = np.unique(pairs, axis=0, return_inverse=True)
        slots = np.full(len(classes), -1, dtype=np.int64)
        slots[kept] = members.reshape(-1)
        return cls(slots, found[:, 0].copy(), found[:, 1].copy())

    def __len__(self) -> int:
        return len(self.clusters)

    @property
    def shared(self) -> int:
        """Clusters that more than one camera saw."""
        return int(np.count_nonzero(np.bincount(self.clusters, minlength=1) > 1))


def proxy_vectors(features: Tensor, slots: Tensor, count: int) -> Tensor:
    """v_a (M, D) of unit ``features`` (N, D) with proxies ``slots`` (N,), negative for none."""
    return functional.normalize(centroids(features, slots, count), dim=1)


def proxy_contrast(scores: Tensor, positives: Tensor, negatives: Tensor, *, hardest: int) -> Tensor:
    """l of every row, (B,).

    Args:
        scores: (B, M) s_a; a row needs at least one negative.
        positives: (B, M) bool.
        negatives: (B, M) bool, those that Q is chosen from.
        hardest: H.
    """
    nowhere = -torch.inf
    rivals = scores.masked_fill(~negatives, nowhere)
    rivals = rivals.topk(min(hardest, rivals.shape[1]), dim=1).values
    contrasted = torch.cat([scores.masked_fill(~positives, nowhere), rivals], dim=1)
    counts = positives.sum(dim=1)
    mean = (scores * positives).sum(dim=1) / counts.clamp(min=1)
    return torch.where(counts > 0, contrasted.logsumexp(dim=1) - mean, 0.0)
