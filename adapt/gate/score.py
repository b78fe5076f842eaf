"""One figure for "better than": weighted, standardised differences of the signals.

    score(c, l) = sum over k of w_k clip(d_k (x_k(c) - x_k(l)) / s_k, -4, 4) / sum of w_k

x_k(c) is signal k of the candidate, x_k(l) that of the live encoder on the same crops; d_k is 1
where more is better and -1 where less is; s_k is the standard deviation of the signal over the
healthy encoders it was calibrated on, and w_k >= 0 its weight, both fixed below. The sums are over
the signals that the live encoder has. So the score is 0 for equals, never falls when a signal gets
better, and a unit of it is about one standard deviation of healthy encoders.

How much an encoder mixes cameras is watched, not weighed: a large fall refuses a candidate, but
how a method draws its batches moves it, too. On one round of unseen encoders the score ranks better
without it, on another worse (docs/gate.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from adapt.gate.signals import HIGHER_IS_BETTER, Figures
from resight.errors import InvalidArgument

__all__ = ["BOUND", "WATCHED", "WEIGHED", "Weighed", "contributions", "score", "standings"]

BOUND = 4.0


class Weighed(NamedTuple):
    """How a signal counts.

    Attributes:
        weight: At least 0.
        scale: Standard deviation over healthy encoders.
    """

    weight: float
    scale: float


# Equal weights: fitted ones rank the calibration encoders no better (docs/gate.md).
WEIGHED: Mapping[str, Weighed] = {
    "silhouette": Weighed(1.0, 0.0853),
    "stability": Weighed(1.0, 0.1028),
    "reciprocity": Weighed(1.0, 0.0428),
    "steadiness": Weighed(1.0, 0.0556),
}

# Scales of those that are not weighed, but must not fall far either.
WATCHED: Mapping[str, float] = {"mixing": 0.0580}


def contributions(candidate: Figures, reference: Figures) -> dict[str, float]:
    """Clipped standardised difference of each weighed signal that the reference has.

    One that the reference has and the candidate has not, or has as NaN, counts -4: crops too much
    alike for a figure are no merit.
    """
    return _differences(
        candidate, reference, {name: weighed.scale for name, weighed in WEIGHED.items()}
    )


def standings(candidate: Figures, reference: Figures) -> dict[str, float]:
    """The contributions, and the same of what is watched alone."""
    return contributions(candidate, reference) | _differences(candidate, reference, WATCHED)


def _differences(
    candidate: Figures, reference: Figures, scales: Mapping[str, float]
) -> dict[str, float]:
    found = {}
    for name, scale in scales.items():
        ours, theirs = candidate.get(name), reference.get(name)
        if theirs is None or math.isnan(theirs):
            continue
        if ours is None or math.isnan(ours):
            found[name] = -BOUND
            continue
        sign = 1.0 if HIGHER_IS_BETTER[name] else -1.0
        found[name] = max(-BOUND, min(BOUND, sign * (ours - theirs) / scale))
    return found


def score(candidate: Figures, reference: Figures) -> float:
    """The score, in [-4, 4].

    Raises:
        InvalidArgument: No weighed signal could be measured for both.
    """
    found = contributions(candidate, reference)
    if not found:
        raise InvalidArgument("crops: no signal can be measured on them", field="crops")
    total = sum(WEIGHED[name].weight for name in found)
    return sum(WEIGHED[name].weight * value for name, value in found.items()) / total
