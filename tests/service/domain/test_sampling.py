"""Samples: uniform, repeatable, stable under deletion, independent of the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.sampling import Sample

MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """Vigna's reference, in whole numbers: one step from a state."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def drawn(rows: list[int], size: int, seed: int, block: int = 1000) -> list[int]:
    sample = Sample(size, seed)
    for start in range(0, len(rows), block):
        sample.offer(np.array(rows[start : start + block], np.int64))
    return sample.rows().tolist()


def test_the_reference_generator_is_the_published_one() -> None:
    # First output for seed 1234567, as in Vigna's splitmix64.c and the tests of other ports.
    assert splitmix64(1234567) == 6457827717110365317


@given(
    st.lists(st.integers(0, 2**62), unique=True, max_size=60),
    st.integers(0, 70),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(1, 60),
)
def test_the_rows_with_the_smallest_hashes_win(
    rows: list[int], size: int, seed: int, block: int
) -> None:
    key = splitmix64(seed & MASK)
    expected = sorted(sorted(rows, key=lambda row: splitmix64(row ^ key))[:size])
    assert drawn(rows, size, seed, block) == expected


def test_every_row_is_as_likely() -> None:
    rows, size, draws = list(range(1, 201)), 50, 2000
    chosen = np.zeros(201)
    for seed in range(draws):
        chosen[drawn(rows, size, seed)] += 1
    deviation = (chosen[1:] - draws * 0.25) / np.sqrt(draws * 0.25 * 0.75)
    assert np.abs(deviation).max() < 5
    assert 0.7 < deviation.std() < 1.3


@pytest.mark.parametrize("gone", [0, 5, 99])
def test_a_row_that_is_gone_moves_nothing_else(gone: int) -> None:
    rows = list(range(1000))
    before = drawn(rows, 100, 7)
    after = drawn([row for row in rows if row != before[gone]], 100, 7)
    assert set(before) - {before[gone]} < set(after)
    assert len(after) == 100
