"""Refinement of global clusters by local ones: CALR (Li et al. 2024).

With the nearest neighbours of crop i at d_ij = 1 - cosine, self included, D = mean of all d_ij, and
N(i) the neighbours other than i with cosine >= m::

    score   s(i) = sum over j in N(i) of 1 / (d_ij + D)
    pivot   of cluster c: the last of its members, in order, with s above the mean of s over all
            crops ("first_above_mean_last", as released); or the member of largest s ("best")
    refine  with pivot p of camera k: every member of c from camera k that is not in p's local
            cluster is dropped (with the probability of ``pace``); members of other cameras stay
    pace    1 ("constant", as released), or (1 + cos(pi e / 3E)) / 2 in epoch e of E ("cosine",
            which the released code has commented out; the paper's schedule is not known)

A cluster in which no member is above the mean has no pivot and is left as it is. Released code
calls the score's neighbours those that Infomap links; they are searched for alike under DBSCAN.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.neighbours import Neighbours

__all__ = ["drop_probability", "misplaced", "pivot_scores", "pivots"]

_TINY = 1e-12


def pivot_scores(neighbours: Neighbours, min_cosine: float) -> NDArray[np.float64]:
    """s(i) of every crop, (N,); column 0 of ``neighbours`` is the crop itself, -1 is nobody."""
    present = neighbours.indices >= 0
    distances = np.clip(1.0 - neighbours.similarities, 0.0, None)
    mean = float(distances[present].mean()) if present.any() else 0.0
    kept = present & (neighbours.similarities >= min_cosine)
    kept[:, :1] = False
    # Where all crops are equal both terms are 0.
    shares = 1.0 / np.maximum(distances + mean, _TINY)
    result: NDArray[np.float64] = np.where(kept, shares, 0.0).sum(axis=1)
    return result


def pivots(
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    count: int,
    rule: Literal["first_above_mean_last", "best"],
) -> NDArray[np.int64]:
    """Row of the pivot of each cluster 0..count-1, (count,) int64; -1 where it has none.

    Args:
        scores: (N,) of all crops, outliers included.
        labels: (N,) global cluster, -1 = outlier.
    """
    chosen = np.full(count, -1, dtype=np.int64)
    if rule == "best":
        # Ascending by score; among equal ones the lowest row comes last, and so is kept.
        rows = np.lexsort((-np.arange(len(scores)), scores))
        rows = rows[labels[rows] >= 0]
        chosen[labels[rows]] = rows
        return chosen
    rows = np.flatnonzero((labels >= 0) & (scores > scores.mean()))
    np.maximum.at(chosen, labels[rows], rows)
    return chosen


def misplaced(
    labels: NDArray[np.int64],
    chosen: NDArray[np.int64],
    cameras: NDArray[np.int32],
    local: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Members (N,) of their pivot's camera that are not in its local cluster.

    Args:
        labels: (N,) global cluster, -1 = outlier.
        chosen: (count,) pivots.
        cameras: (N,).
        local: (N,) local cluster, unique over all cameras or within each.
    """
    pivot = np.where(labels >= 0, chosen[np.maximum(labels, 0)], -1) if len(chosen) else labels
    known = pivot >= 0
    result: NDArray[np.bool_] = known & (cameras == cameras[pivot]) & (local != local[pivot])
    return result


def drop_probability(pace: Literal["constant", "cosine"], epoch: int, epochs: int) -> float:
    """Probability with which a misplaced crop is dropped in ``epoch`` (from 0)."""
    if pace == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * epoch / (3.0 * max(1, epochs))))
