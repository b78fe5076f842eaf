"""What is counted of pseudo-labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from adapt.methods.method import EpochLabels


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_a_tally(seed: int) -> None:
    classes = np.random.default_rng(seed).integers(-1, 12, 20)
    made = EpochLabels.counted(classes, 12, notes=["a"])
    tally = Counter(classes[classes >= 0].tolist())
    several = [size for size in tally.values() if size > 1]
    assert made.clusters == len(several)
    assert made.outliers == 20 - sum(several)
    assert made.largest == max(tally.values())
    assert (made.notes, made.seconds, made.extra, made.draw) == (("a",), {}, {}, None)


def test_no_class_at_all() -> None:
    made = EpochLabels.counted(np.full(3, -1), 0)
    assert (made.clusters, made.outliers, made.largest) == (0, 3, 0)
