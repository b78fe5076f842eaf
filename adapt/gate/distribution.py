"""Where the crops lie: how many directions are used, and whether some crops are near everything.

effective rank = exp(- sum p_i log p_i), p the eigenvalues of the covariance over their sum
                 (Roy & Vetterli, EUSIPCO 2007)                          between 1 and D
crowding       = mean similarity of two different crops                  in [-1, 1]
hubness        = skewness of N(j), the number of crops that have j among their k nearest
                 across cameras (Radovanovic et al., JMLR 2010)          0 where even
orphans        = share of the crops with N(j) = 0                        in [0, 1]
uniformity     = log mean exp(-2 |f_i - f_j|^2) (Wang & Isola, ICML 2020)   at most 0
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.gate.view import View

__all__ = ["crowding", "effective_rank", "hubness", "orphans", "uniformity"]

_K = 10
_BLOCK = 512
_LEAST = 1e-12


def effective_rank(view: View) -> float:
    """Of the covariance of the features; 1 where all crops are one point."""
    rows = view.features.astype(np.float64)
    rows -= rows.mean(axis=0)
    values = np.clip(np.linalg.eigvalsh(rows.T @ rows), 0.0, None)
    if values.sum() < _LEAST:
        return 1.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def crowding(view: View) -> float:
    """From |sum f|^2, without products of pairs."""
    count = len(view)
    total = view.features.astype(np.float64).sum(axis=0)
    return float((total @ total - count) / (count * (count - 1)))


def hubness(view: View) -> float:
    """Skewness of the k-occurrence at k = 10; 0 where every crop is as often chosen."""
    counts = _occurrence(view)
    deviation = float(counts.std())
    return float(((counts - counts.mean()) ** 3).mean() / deviation**3) if deviation else 0.0


def orphans(view: View) -> float:
    """Share of the crops that nobody chooses."""
    return float((_occurrence(view) == 0).mean())


def uniformity(view: View) -> float:
    """The uniformity, block by block."""
    rows = view.features
    total = 0.0
    for start in range(0, len(rows), _BLOCK):
        # |f - g|^2 = 2 - 2 f g for unit vectors.
        products = (rows[start : start + _BLOCK] @ rows.T).astype(np.float64)
        total += float(np.exp(4.0 * (products - 1.0)).sum())
    count = len(rows)
    return float(np.log(max(_LEAST, (total - count) / (count * (count - 1)))))


def _occurrence(view: View) -> NDArray[np.int64]:
    chosen = view.across.indices[:, :_K].reshape(-1)
    return np.bincount(chosen[chosen >= 0], minlength=len(view))
