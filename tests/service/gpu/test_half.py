"""The bound of a half-precision product, against products that were computed so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gpu.half import Rounding, product_error, rounding


@given(
    dimension=st.sampled_from([1, 3, 64, 512, 2048]),
    kind=st.sampled_from(["normal", "sparse", "tiny", "aligned"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_no_product_is_further_off_than_the_bound(dimension: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((40, dimension))
    if kind == "sparse":
        raw *= rng.random(raw.shape) < 0.05
        raw[:, 0] += 1e-3
    elif kind == "tiny":
        # Most values are below the smallest normal half.
        raw[:, 0] = 3e4
    elif kind == "aligned":
        raw = np.abs(raw[:1]) + 1e-3 * raw
    vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    queries, rows = vectors[:8], vectors[8:]
    halves = [each.astype(np.float16).astype(np.float32) for each in (queries, rows)]
    computed = halves[0] @ halves[1].T
    # Summed one after the other, cut off instead of rounded, as tensor cores may.
    cut = np.zeros_like(computed)
    for position in range(dimension):
        exact = cut.astype(np.float64) + np.outer(halves[0][:, position], halves[1][:, position])
        nearest = exact.astype(np.float32)
        over = np.abs(nearest.astype(np.float64)) > np.abs(exact)
        cut = np.where(over, np.nextafter(nearest, np.float32(0)), nearest)
    truth = queries.astype(np.float64) @ rows.T.astype(np.float64)
    error = product_error(rounding(rows), queries)
    assert np.abs(computed - truth).max() <= error
    assert np.abs(cut - truth).max() <= error


def test_the_bound_is_of_use() -> None:
    """For unit rows of 512 values it is well below the general one, 2^-10."""
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((1000, 512))
    vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    assert product_error(rounding(vectors), vectors[:1]) < 0.75 * 2.0**-10


def test_roundings_join_to_the_worse() -> None:
    assert Rounding(1.0, 5.0).joined(Rounding(2.0, 3.0)) == Rounding(2.0, 5.0)
    assert rounding(np.empty((0, 7), np.float32)) == Rounding(0.0, 0.0)
    exact = np.array([[0.5, 0.25]], np.float32)
    assert rounding(exact).error == 0
    assert rounding(exact).norm == pytest.approx(np.hypot(0.5, 0.25), rel=2e-3)
