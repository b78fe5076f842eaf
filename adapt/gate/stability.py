"""Whether crops cluster alike when others are looked at beside them.

The sample is cut at random into a core of 70 % and two parts of 15 %; each part is clustered with
the core. With A(i), B(i) the core crops that share crop i's cluster in the one and in the other,
itself left out::

    stability = mean over core crops of |A(i) and B(i)| / |A(i) or B(i)|, 0 where both are empty

in [0, 1], a mean over four cuts: the share of the crops that have company, and keep it. (After
Ben-Hur et al., PSB 2002, crop by crop: counted by pairs, a few large clusters decide, and two draws
of the same site differ more than two encoders.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.gate.view import View

__all__ = ["kept_company", "stability"]

_CUTS = 4
_CORE = 0.7
_SEED = 4


def stability(view: View) -> float:
    """The mean over the cuts, which are the same for every encoder."""
    random = np.random.default_rng(_SEED)
    core = int(_CORE * len(view))
    part = (len(view) - core) // 2
    found = []
    for _ in range(_CUTS):
        order = random.permutation(len(view))
        inside, rest = order[:core], order[core:]
        labels = [
            view.cluster(np.concatenate([inside, beside])).labels[:core]
            for beside in (rest[:part], rest[part : 2 * part])
        ]
        found.append(kept_company(*labels))
    return float(np.mean(found))


def kept_company(one: NDArray[np.int32], other: NDArray[np.int32]) -> float:
    """Mean over N crops of the Jaccard index of their companions; labels (N,), -1 for none."""
    both = (one >= 0) & (other >= 0)
    pairs = np.stack([one[both], other[both]])
    _, where, counts = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
    shared = np.zeros(len(one))
    shared[both] = counts[where.reshape(-1)] - 1
    either = _companions(one) + _companions(other) - shared
    kept = np.divide(shared, either, out=np.zeros(len(one)), where=either > 0)
    return float(kept.mean()) if len(one) else 0.0


def _companions(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    inside = labels >= 0
    result = np.zeros(len(labels))
    result[inside] = np.bincount(labels[inside])[labels[inside]] - 1
    return result
