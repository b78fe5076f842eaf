"""Pairs where there are no tracks: the clusters of the last epoch stand for people.

    same       two crops of one cluster
    different  two crops at random that are not of one cluster, crops in no cluster included

both between cameras where cameras are known. The clusters were made from the similarities that are
to be calibrated, so nothing is left to test on, and what follows is a guess, marked as one.

    prior = sum_c (n_c^2 - sum_k n_ck^2) / (N^2 - sum_k N_k^2)

is the share of pairs of one cluster among all pairs between cameras: n_ck crops of cluster c by
camera k. Without cameras, among all pairs of two crops.

A mixture of two normals with the clusters as noisy witnesses was tried and is worse: the witnesses
err just where the similarity is high, so it takes their errors for truth (docs/bundle.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.export.pairs import LabelFreePairs
from resight.errors import FailedPrecondition

__all__ = ["CLUSTERS_NOTE", "choose_clustered", "cluster_pairs", "cluster_prior"]

_MIN_PAIRS = 50
_LIMIT = 20_000
_TRIES = 8
CLUSTERS_NOTE = (
    "no tracks: fitted on the encoder's own clusters, which confirm it whether they are right or"
    " wrong; nothing was left to test it on"
)


def choose_clustered(
    labels: NDArray[np.integer], limit: int, *, seed: int = 0
) -> NDArray[np.int64]:
    """Crops for ``cluster_pairs``, in rising order: half whole clusters, half at random.

    Args:
        labels: (N,) cluster of each crop; -1 in none.
        limit: Most crops to choose.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    classes = np.asarray(labels, np.int64)
    # A random key a cluster: sorted by it, crops come cluster by cluster.
    keys = rng.permutation(int(classes.max(initial=0)) + 1)
    clustered = np.flatnonzero(classes >= 0)
    whole = clustered[np.argsort(keys[classes[clustered]], kind="stable")][: limit // 2]
    rest = rng.permutation(np.setdiff1d(np.arange(len(classes)), whole))[: limit - len(whole)]
    return np.sort(np.concatenate([whole, rest]))


def cluster_pairs(
    labels: NDArray[np.integer], cameras: NDArray[np.integer] | None = None, *, seed: int = 0
) -> LabelFreePairs:
    """Draws up to 20,000 pairs of each kind; none are held out.

    Args:
        labels: (N,) cluster of each crop; -1 in none.
        cameras: (N,) codes, or None; -1 unknown.
        seed: Of the draw.

    Raises:
        FailedPrecondition: Fewer than 50 pairs of a kind.
    """
    rng = np.random.default_rng(seed)
    classes = np.asarray(labels, np.int64)
    codes = np.full(len(classes), -1) if cameras is None else np.asarray(cameras, np.int64)
    together = _across(_together(classes, rng), codes, rng)
    left, right = rng.integers(0, max(len(classes), 1), (2, min(_LIMIT, _TRIES * len(classes))))
    kept = (left != right) & ((classes[left] != classes[right]) | (classes[left] < 0))
    apart = _across(np.stack([left[kept], right[kept]], axis=1), codes, rng)
    if min(len(together), len(apart)) < _MIN_PAIRS:
        raise FailedPrecondition(
            f"calibration: {len(together)} pairs of one cluster and {len(apart)} of none;"
            f" {_MIN_PAIRS} of each are needed: give more crops, or crops with tracks",
            field="crops",
            reason="TOO_FEW_CLUSTERS",
        )
    pairs = np.concatenate([together, apart])
    same = np.arange(len(pairs)) < len(together)
    return LabelFreePairs(
        pairs[:, 0], pairs[:, 1], same, np.zeros(len(pairs), bool), (CLUSTERS_NOTE,)
    )


def cluster_prior(
    labels: NDArray[np.integer], cameras: NDArray[np.integer] | None = None
) -> float | None:
    """Share of pairs of one cluster; None where there is no such pair.

    Args:
        labels: (N,) cluster of each crop; -1 in none.
        cameras: (N,) codes, or None; crops without camera (-1) are left out where others have one.
    """
    classes = np.asarray(labels, np.int64)
    codes = np.arange(len(classes))  # each crop by itself: no pair of a crop with itself
    if cameras is not None:
        known = np.asarray(cameras, np.int64) >= 0
        if len(np.unique(cameras[known])) > 1:
            classes, codes = classes[known], np.asarray(cameras, np.int64)[known]
    clustered = classes >= 0
    one = _square(classes[clustered]) - _square(
        np.stack([classes[clustered], codes[clustered]], axis=1)
    )
    return one / (len(classes) ** 2 - _square(codes)) if one else None


def _together(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Each clustered crop with a few others of its cluster."""
    rows = np.flatnonzero(labels >= 0)
    order = rows[np.argsort(labels[rows], kind="stable")]
    sizes = np.unique(labels[order], return_counts=True)[1]
    starts, spans = np.repeat(np.cumsum(sizes) - sizes, sizes), np.repeat(sizes, sizes)
    left = np.tile(np.arange(len(order)), _TRIES)
    right = starts[left] + (rng.random(len(left)) * spans[left]).astype(np.int64)
    kept = left != right
    return np.stack([order[left[kept]], order[right[kept]]], axis=1)


def _across(
    pairs: NDArray[np.int64], cameras: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Those between cameras, or all where these are too few; each once."""
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    a, b = cameras[pairs[:, 0]], cameras[pairs[:, 1]]
    across = (a != b) & (a >= 0) & (b >= 0)
    chosen = pairs[across] if across.sum() >= _MIN_PAIRS else pairs
    return rng.permutation(chosen)[:_LIMIT]


def _square(codes: NDArray[np.int64]) -> int:
    """Sum of the squared numbers of equal codes."""
    counts = np.unique(codes, axis=0, return_counts=True)[1].astype(np.int64)
    return int((counts**2).sum())
