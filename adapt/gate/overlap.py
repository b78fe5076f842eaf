"""Agreement across cameras whose views overlap, where the operator names such pairs.

Who is in the view of both is seen by both at one time. For a crop i of one camera let P be the
crops of the other within ``moment`` seconds of it, and let O be as many others of that camera drawn
at random, none of them within ``away`` seconds::

    overlap = mean over i of [max s(i, P) > max s(i, O)] + [equal] / 2               in [0, 1]

1/2 is chance, and what an encoder reaches is bounded by how often people are in both views.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapt.gate.sample import Sample
from adapt.gate.view import View

__all__ = ["overlap"]

_MOMENT = 2.0
_AWAY = 60.0
_LEAST = 30
_SEED = 6


def overlap(view: View, sample: Sample, pairs: Sequence[tuple[str, str]]) -> float | None:
    """The mean over both directions of all ``pairs`` of camera names; None below 30 crops."""
    if sample.cameras is None:
        return None
    random = np.random.default_rng(_SEED)
    codes = {name: code for code, name in enumerate(sample.names)}
    times = sample.sightings.times
    wins: list[float] = []
    for one, other in [*pairs, *((b, a) for a, b in pairs)]:
        if one not in codes or other not in codes:
            continue
        there = np.flatnonzero(sample.cameras == codes[other])
        for row in np.flatnonzero(sample.cameras == codes[one]):
            apart = np.abs(times[there] - times[row])
            together, away = there[apart <= _MOMENT], there[apart > _AWAY]
            if not len(together) or len(away) < len(together):
                continue
            drawn = random.choice(away, len(together), replace=False)
            best = [float((view.features[rows] @ view.features[row]).max())
                    for rows in (together, drawn)]  # fmt: skip
            wins.append(0.5 * (best[0] > best[1]) + 0.5 * (best[0] >= best[1]))
    return float(np.mean(wins)) if len(wins) >= _LEAST else None
