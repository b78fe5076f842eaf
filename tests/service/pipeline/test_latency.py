"""The latency fit against times it was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pipeline.latency import LatencyModel


@given(
    fixed=st.floats(0, 1), each=st.floats(1e-4, 0.1), sizes=st.lists(st.integers(1, 32), min_size=4)
)
def test_recovers_a_linear_law(fixed: float, each: float, sizes: list[int]) -> None:
    model = LatencyModel()
    for size in [*sizes, 1, 32]:
        model.observe(size, fixed + each * size)
    assert model.coefficients() == pytest.approx((fixed, each), rel=1e-3, abs=1e-5)
    expected = 3 * fixed + 20 * each
    assert model.seconds(20, max_batch=8) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_one_batch_size_puts_all_time_on_the_images() -> None:
    model = LatencyModel()
    for _ in range(10):
        model.observe(4, 0.2)
    assert model.coefficients() == pytest.approx((0.0, 0.05))


def test_follows_a_machine_that_slows_down() -> None:
    model = LatencyModel(memory=10)
    for scale in [1.0] * 40 + [3.0] * 60:
        for size in (1, 8):
            model.observe(size, scale * 0.01 * size)
    assert model.coefficients()[1] == pytest.approx(0.03, rel=0.05)


def test_knows_nothing_before_the_first_batch() -> None:
    assert LatencyModel().seconds(5, max_batch=2) == 0.0
