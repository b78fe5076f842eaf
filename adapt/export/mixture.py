"""A calibration where there are no tracks: the encoder's own clusters as noisy witnesses.

Pairs have a similarity s_i and the clusters' word c_i, 1 if both crops are in one cluster. With
z_i, unseen, for "one person":

    s_i | z ~ N(mu_z, sigma^2)        one variance for both, so that log-odds are a rising line
    c_i | z ~ Bernoulli(alpha_z)      alpha_1 = share of true pairs that clusters keep together,
                                      alpha_0 = share of false pairs that they put together
    z_i ~ Bernoulli(pi)

fitted by expectation-maximisation:

    r_i  = pi N(s_i; mu_1) alpha_1^c (1 - alpha_1)^(1-c) / (the same + its counterpart for z = 0)
    mu_z, alpha_z, pi = means weighted by r_i (z = 1) or 1 - r_i (z = 0);  sigma^2 = pooled variance
    f(s) = (mu_1 - mu_0) / sigma^2 s - (mu_1^2 - mu_0^2) / (2 sigma^2)       at a prior of 1/2

This is a guess: the clusters were made from these similarities, so they agree with them whether
they are right or wrong, and no pairs are left to test on. It is marked EVIDENCE_CLUSTERS.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition
from resight.v1 import bundle_pb2

__all__ = ["calibrate_on_clusters", "cluster_pairs"]

_MIN_PAIRS = 50
_STEPS = 500
_LIMIT = 20_000
_ALPHA = (1e-3, 1 - 1e-3)
NOTE = (
    "no tracks: fitted on the encoder's own clusters, which confirm it; read probabilities as a"
    " ranking, not as odds"
)


def cluster_pairs(
    labels: NDArray[np.integer], cameras: NDArray[np.integer] | None = None, *, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draws as many pairs of one cluster as of two, between cameras where cameras are known.

    Args:
        labels: (N,) cluster of each crop; -1 in none.
        cameras: (N,) codes, or None; -1 unknown.
        seed: Of the draw.

    Returns:
        Rows (P, 2) and, for each, whether it is one cluster's.

    Raises:
        FailedPrecondition: Fewer than 50 pairs of a kind.
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(labels >= 0)
    order = rows[np.argsort(labels[rows], kind="stable")]
    sizes = np.unique(labels[order], return_counts=True)[1]
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    spans = np.repeat(sizes, sizes)
    left = np.tile(np.arange(len(order)), 8)
    inside = starts[left] + (rng.random(len(left)) * spans[left]).astype(np.int64)
    found = []
    for right in (inside, rng.integers(0, max(len(order), 1), len(left))):
        pairs = np.sort(np.stack([order[left], order[right]], axis=1), axis=1)
        one = labels[pairs[:, 0]] == labels[pairs[:, 1]]
        kept = (pairs[:, 0] != pairs[:, 1]) & (one == (right is inside))
        if cameras is not None:
            a, b = cameras[pairs[:, 0]], cameras[pairs[:, 1]]
            across = kept & (a != b) & (a >= 0) & (b >= 0)
            kept = across if across.sum() >= _MIN_PAIRS else kept
        found.append(rng.permutation(np.unique(pairs[kept], axis=0))[:_LIMIT])
    count = min(map(len, found))
    if count < _MIN_PAIRS:
        raise FailedPrecondition(
            f"calibration: {len(found[0])} pairs of one cluster and {len(found[1])} of two;"
            f" {_MIN_PAIRS} of each are needed",
            field="crops",
            reason="TOO_FEW_CLUSTERS",
        )
    return np.concatenate([part[:count] for part in found]), np.arange(2 * count) < count


def calibrate_on_clusters(
    similarity: NDArray[np.floating], together: NDArray[np.bool_]
) -> bundle_pb2.ScoreCalibration:
    """Fits the mixture.

    Args:
        similarity: (P,) cosine similarities.
        together: (P,) bool, whether the two crops are in one cluster.

    Returns:
        The calibration at a prior of 1/2, marked as the clusters' word.

    Raises:
        FailedPrecondition: The two kinds of pairs cannot be told apart.
    """
    s, c = np.asarray(similarity, np.float64), np.asarray(together, np.float64)
    mean = np.array([s[c == 0].mean(), s[c == 1].mean()])
    variance, prior = float(s.var()), float(c.mean())
    alpha = np.array([0.1, 0.9])
    r = c
    for _ in range(_STEPS):
        log_ratio = (
            np.log(prior / (1 - prior))
            + ((s - mean[0]) ** 2 - (s - mean[1]) ** 2) / (2 * variance)
            + np.where(c == 1, np.log(alpha[1] / alpha[0]), np.log((1 - alpha[1]) / (1 - alpha[0])))
        )
        before, r = r, 1 / (1 + np.exp(-np.clip(log_ratio, -500, 500)))
        weights = np.stack([1 - r, r])
        total = weights.sum(axis=1).clip(1e-9)
        mean = weights @ s / total
        alpha = np.clip(weights @ c / total, *_ALPHA)
        variance = float((weights * (s - mean[:, None]) ** 2).sum() / len(s)) + 1e-12
        prior = float(np.clip(r.mean(), *_ALPHA))
        if np.abs(r - before).max() < 1e-8:
            break
    slope = float((mean[1] - mean[0]) / variance)
    if not slope > 0 or not _ALPHA[0] < prior < _ALPHA[1]:
        raise FailedPrecondition(
            "calibration: pairs of one cluster are no more similar than pairs of two",
            field="calibration",
            reason="NOT_SEPARATED",
        )
    return bundle_pb2.ScoreCalibration(
        evidence=bundle_pb2.ScoreCalibration.EVIDENCE_CLUSTERS,
        form=bundle_pb2.ScoreCalibration.FORM_LOGISTIC,
        slope=slope,
        intercept=-float(mean[1] ** 2 - mean[0] ** 2) / (2 * variance),
        prior=0.5,
        positives=int(c.sum()),
        negatives=int((1 - c).sum()),
        notes=[NOTE],
    )
