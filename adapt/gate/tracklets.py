"""Agreement within tracklets: one person's crops close, two people's far.

Pairs as in :mod:`adapt.export.pairs`: two crops of one track, far apart in time; two crops of
different people, since they were seen at one time. Over P pairs of one person and Q of two::

    agreement = (1 / PQ) sum over p, q of [s_p > s_q] + [s_p = s_q] / 2              in [0, 1]

which is the area under the ROC curve: 1 parts the two kinds, 1/2 is chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.export.pairs import LabelFreePairs, PairSettings, tracklet_pairs
from adapt.gate.sample import Sample
from adapt.gate.view import View
from resight.errors import FailedPrecondition

__all__ = ["agreement", "area", "find_pairs"]


def find_pairs(sample: Sample, *, views_overlap: bool, seed: int) -> LabelFreePairs | None:
    """Pairs known without labels; None where there are too few tracks."""
    settings = PairSettings(views_overlap=views_overlap)
    try:
        return tracklet_pairs(sample.sightings, settings, seed=seed)
    except FailedPrecondition:
        return None


def agreement(view: View, pairs: LabelFreePairs) -> float:
    """The area under the curve of ``pairs``."""
    similarities = pairs.similarities(view.features)
    return area(similarities[pairs.same], similarities[~pairs.same])


def area(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """P(positive > negative) + P(equal) / 2 over all pairs of values (P,) and (Q,)."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    up_to = np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / (2 * len(negative)))
