"""Whether a camera still sees as it did, told from embeddings alone.

Of one camera and one model, x_1 .. x_R are the unit vectors of the first crops and y_1 .. y_N those
of the newest ones, one crop of each track. With m and m' their means and the spreads

    s^2  = R / (R - 1) (1 - |m|^2),    s'^2 = N / (N - 1) (1 - |m'|^2),

the shift of the mean, in units of the spread and with what chance explains taken off, is

    shift = sqrt( max(0, |m - m'|^2 - s^2 / R - s'^2 / N) / s^2 )

(E |m - m'|^2 = s^2 / R + s'^2 / N without drift, as the trace of the covariance of unit vectors is
1 - |mu|^2). It needs no scale, so it can be compared between models. A mean hides a camera whose
crops got worse without moving anywhere, so there is the share of low matches, too: with A the first
and B the second half of x, and tau the 5 % quantile of max_{a in A} <a, b> over b in B,

    low = share of y with max_{a in A} <a, y> < tau,

which is 0.05 without drift, whatever the model's scores look like.

The sample must be of other tracks and times than A, as crops of one track match too well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOW", "Drift", "drift", "over_cameras"]

LOW = 0.05
QUANTILES = (0.5, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Drift:
    """Of one camera; see the module's page. ``shift`` from 0 on, ``low_match_share`` 0 to 1."""

    shift: float
    low_match_share: float


def drift(first: NDArray[np.float32], newest: NDArray[np.float32]) -> Drift:
    """Compare the newest crops with the first ones.

    Args:
        first: (R, D) unit vectors, oldest first, R at least 4.
        newest: (N, D) unit vectors, N at least 2.
    """
    reference, recent = first.astype(np.float64), newest.astype(np.float64)
    before, after = reference.mean(axis=0), recent.mean(axis=0)
    spread, spread_after = _spread(before, len(reference)), _spread(after, len(recent))
    moved = float(np.sum((before - after) ** 2))
    moved -= spread / len(reference) + spread_after / len(recent)
    half = len(reference) // 2
    usual = _best(reference[half:], reference[:half])
    low = _best(recent, reference[:half]) < np.quantile(usual, LOW)
    return Drift(float(np.sqrt(max(0.0, moved) / spread)) if spread > 0 else 0.0, float(low.mean()))


def over_cameras(values: list[float]) -> dict[float, float]:
    """Quantiles of the cameras' values; empty without any."""
    if not values:
        return {}
    found = np.quantile(np.array(values), QUANTILES)
    return dict(zip(QUANTILES, (float(value) for value in found), strict=True))


def _spread(mean: NDArray[np.float64], count: int) -> float:
    return count / (count - 1) * (1.0 - float(mean @ mean))


def _best(vectors: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (vectors @ among.T).max(axis=1)
    return found
