"""SpCL's self-paced reliability criterion, from contingency counts (Ge et al., NeurIPS 2020, 3.3).

With C(i), T(i), L(i) the class of crop i at eps, eps - gap and eps + gap (an outlier is a class of
its own):

    comp(i)  = 1 - |C(i) ∩ T(i)| / |C(i) ∪ T(i)|      indep(i)  = 1 - |C(i) ∩ L(i)| / |C(i) ∪ L(i)|
    comp*(c) = min over members of comp               indep*(c) = min over members of indep
    theta    = 0.9-quantile of indep* over clusters of more than one image, fixed at epoch 0
    keep i in its cluster c  iff  indep*(c) <= theta and comp(i) <= comp*(c)

Everyone else becomes a class of its own for this epoch. The released code holds three N x N masks;
|C ∩ T| is the number of crops with that pair of labels, so N counts suffice and are equal exactly.
The quantile is the released order statistic: element min(n - 1, round(0.9 n)) of the sorted values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SelfPaced", "overlap_distance", "select", "unify"]

_QUANTILE = 0.9


@dataclass(frozen=True)
class SelfPaced:
    """Outcome of the criterion.

    Attributes:
        labels: (N,) int64, -1 where a crop was put out of its cluster or was an outlier.
        theta: Threshold on indep* that was used.
        dissolved: Clusters (of more than one image) that failed on independence.
    """

    labels: NDArray[np.int64]
    theta: float | None
    dissolved: int


def unify(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Classes 0..U-1 for ``labels`` (N,): clusters in order, then each -1 as a class of its own."""
    result = np.empty(len(labels), dtype=np.int64)
    clustered = labels >= 0
    present, result[clustered] = np.unique(labels[clustered], return_inverse=True)
    singles = np.flatnonzero(~clustered)
    result[singles] = len(present) + np.arange(len(singles))
    return result


def overlap_distance(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 - |A(i) ∩ B(i)| / |A(i) ∪ B(i)| for classes ``first``, ``second`` (N,); O(N log N)."""
    pairs = first * (int(second.max(initial=0)) + 1) + second
    _, inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    shared = counts[inverse]
    union = np.bincount(first)[first] + np.bincount(second)[second] - shared
    distance: NDArray[np.float64] = 1.0 - shared / union
    return distance


def select(
    labels: NDArray[np.integer],
    tight: NDArray[np.integer],
    loose: NDArray[np.integer],
    *,
    theta: float | None,
) -> SelfPaced:
    """Applies the criterion.

    Args:
        labels: (N,) at eps, -1 = outlier.
        tight: (N,) at eps - gap.
        loose: (N,) at eps + gap.
        theta: Threshold of the first epoch that had clusters, or None to determine it now.
    """
    classes = unify(labels)
    sizes = np.bincount(classes)
    compactness = overlap_distance(classes, unify(tight))
    independence = overlap_distance(classes, unify(loose))
    best_compactness = np.full(len(sizes), np.inf)
    best_independence = np.full(len(sizes), np.inf)
    np.minimum.at(best_compactness, classes, compactness)
    np.minimum.at(best_independence, classes, independence)
    clusters = sizes > 1
    if theta is None and clusters.any():
        theta = _quantile(best_independence[clusters])
    # Without a single cluster there is no quantile yet, and nothing for a threshold to keep.
    limit = np.inf if theta is None else theta
    kept = (best_independence[classes] <= limit) & (compactness <= best_compactness[classes])
    reliable = np.where(kept & (labels >= 0), labels, -1).astype(np.int64)
    dissolved = int(np.count_nonzero(clusters & (best_independence > limit)))
    return SelfPaced(reliable, theta, dissolved)


def _quantile(values: NDArray[np.float64]) -> float:
    position = min(len(values) - 1, int(np.round(_QUANTILE * len(values))))
    return float(np.sort(values)[position])
