"""Which tensor is not finite."""

from __future__ import annotations

import math

import pytest
import torch

from adapt.training.finiteness import first_not_finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_is_named(value: float) -> None:
    bad = torch.zeros(3, 4)
    bad[1, 2] = value
    held = {"count": torch.tensor(3), "none": None, "empty": torch.zeros(0), "model": {"w": bad}}
    assert first_not_finite(held) == "model.w"
    bad[1, 2] = 1e38
    assert first_not_finite(held) is None
