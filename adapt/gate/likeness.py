"""How far the candidate and the live encoder see the same neighbours.

    overlap(i)  = rank-biased overlap of the two lists of nearest crops (Webber et al., TOIS 2010),
                  (1 - p) sum_d p^(d-1) |first d of both| / d over the depth of the lists, divided
                  by what equal lists give                                            in [0, 1]
    likeness    = mean overlap(i), lists across cameras

    endorsement(a, b) = mean over b's mutual pairs (i, j), each the other's nearest across cameras,
                        of 1 / rank of j in a's list of i                             in [0, 1]

Both say how much changed, not for better or worse: only their collapse towards chance means
something, a candidate that sees another world than the encoder it was trained from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.gate.view import View

__all__ = ["endorsement", "likeness"]

_PERSISTENCE = 0.9
_BLOCK = 512


def likeness(one: View, other: View) -> float:
    """Mean rank-biased overlap; 0 where nobody has a neighbour."""
    a, b = one.across.indices, other.across.indices
    depth = min(a.shape[1], b.shape[1])
    known = (a[:, :depth] >= 0) & (b[:, :depth] >= 0)
    weights = _PERSISTENCE ** np.arange(depth)
    total = np.zeros(len(a))
    shared = np.zeros(len(a))
    for d in range(depth):
        # Whom depth d adds to what both have: b's d-th in a, a's d-th in b, once if the same.
        shared += (a[:, : d + 1] == b[:, d, None]).any(axis=1) & known[:, d]
        shared += (b[:, :d] == a[:, d, None]).any(axis=1) & known[:, d]
        total += weights[d] * shared / (d + 1) * known[:, d]
    most = (weights * known).sum(axis=1)
    found = most > 0
    return float((total[found] / most[found]).mean()) if found.any() else 0.0


def endorsement(judge: View, judged: View) -> float:
    """Mean reciprocal rank, by ``judge``, of the mutual pairs of ``judged``; 0 without any."""
    first = judged.across.indices[:, 0]
    rows = np.arange(len(first))
    pairs = rows[(first >= 0) & (first[first] == rows)]
    ranks: list[NDArray[np.float64]] = []
    for start in range(0, len(pairs), _BLOCK):
        part = pairs[start : start + _BLOCK]
        scores = judge.features[part] @ judge.features.T
        own = scores[np.arange(len(part)), first[part]][:, None]
        others = part[:, None] != rows[None]
        if judge.cameras is not None:
            others &= judge.cameras[part][:, None] != judge.cameras[None]
        above = ((scores > own) & others).sum(axis=1)
        ties = ((scores == own) & others).sum(axis=1) - 1
        ranks.append(1.0 / (1.0 + above + np.maximum(ties, 0) / 2))
    return float(np.concatenate(ranks).mean()) if ranks else 0.0
