"""Whether a changed copy of a crop is still taken for it.

    recovery    = mean over copies of 1 / (1 + crops more similar to the copy than its original)
    steadiness  = mean over copies of |T(copy) and T(original)| / k, T being the k nearest crops
                  across cameras

Both in [0, 1]. Recovery alone proves little: an encoder that knows colours and no people finds
originals well. Steadiness asks for the same people's crops, seen by other cameras.
"""

from __future__ import annotations

import numpy as np

from adapt.gate.view import View

__all__ = ["recovery", "steadiness"]

_K = 10
_BLOCK = 512


def recovery(view: View) -> float | None:
    """Mean reciprocal rank of the original; None without copies. Ties count half."""
    ranks = []
    for start in range(0, len(view.copies), _BLOCK):
        part = view.copies[start : start + _BLOCK].astype(np.float64)
        scores = part @ view.features.astype(np.float64).T
        own = scores[np.arange(len(part)), start + np.arange(len(part))][:, None]
        ranks.append((scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2)
    return float((1.0 / (1.0 + np.concatenate(ranks))).mean()) if ranks else None


def steadiness(view: View) -> float | None:
    """Share of neighbours kept, over crops with ten neighbours; None where none has."""
    lists = view.across.indices
    if lists.shape[1] < _K:
        return None
    kept: list[float] = []
    for start in range(0, len(view.copies), _BLOCK):
        part = view.copies[start : start + _BLOCK]
        rows = np.arange(start, start + len(part))
        scores = part @ view.features.T
        scores[np.arange(len(part)), rows] = -np.inf
        if view.cameras is not None:
            scores[view.cameras[rows][:, None] == view.cameras[None]] = -np.inf
        found = np.argpartition(-scores, _K - 1, axis=1)[:, :_K]
        full = lists[rows, _K - 1] >= 0
        shared = (found[:, :, None] == lists[rows][:, None, :_K]).any(axis=2).mean(axis=1)
        kept += shared[full].tolist()
    return float(np.mean(kept)) if kept else None
