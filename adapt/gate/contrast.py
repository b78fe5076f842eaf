"""How far the nearest crop at another camera stands out from the rest.

    contrast = mean over i of (s(i, first) - mean) / sd

with mean and standard deviation of the similarities of all pairs across cameras: standardised, so
an affine change of all similarities leaves it as it is. It has no upper bound in theory; encoders
of people give 3 to 6.

    distinctness = 1 - mean over i of (1 - s(i, first)) / (1 - s(i, tenth))          in [0, 1]

which is Lowe's ratio test (IJCV 2004) with the tenth neighbour in place of the second.
"""

from __future__ import annotations

import numpy as np

from adapt.gate.view import View

__all__ = ["contrast", "distinctness"]

_TENTH = 9
_LEAST = 1e-9


def contrast(view: View) -> float:
    """The contrast; 0 where all pairs are equally similar."""
    mean, deviation = view.moments
    found = view.across.indices[:, 0] >= 0
    if deviation < _LEAST or not found.any():
        return 0.0
    return float((view.across.similarities[found, 0].mean() - mean) / deviation)


def distinctness(view: View) -> float | None:
    """The distinctness, over crops that have ten neighbours; None where none has."""
    lists = view.across
    if lists.indices.shape[1] <= _TENTH:
        return None
    full = lists.indices[:, _TENTH] >= 0
    if not full.any():
        return None
    first = 1.0 - lists.similarities[full, 0]
    tenth = 1.0 - lists.similarities[full, _TENTH]
    ratio = np.divide(first, tenth, out=np.ones_like(first), where=tenth > _LEAST)
    return float(1.0 - np.clip(ratio, 0.0, 1.0).mean())
