"""Samples: whole stretches, uniform, repeatable, stable under deletion, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.sampling import STRETCH, Sample

MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """Vigna's reference, in whole numbers: one step from a state."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def drawn(
    rows: list[int], size: int, seed: int, block: int = 1000, stretch: int = STRETCH
) -> list[int]:
    sample = Sample(size, seed, stretch=stretch)
    for start in range(0, len(rows), block):
        sample.offer(np.array(rows[start : start + block], np.int64))
    rows_drawn: list[int] = sample.rows().tolist()
    return rows_drawn


def test_the_reference_generator_is_the_published_one() -> None:
    # First output for seed 1234567, as in Vigna's splitmix64.c and the tests of other ports.
    assert splitmix64(1234567) == 6457827717110365317


@given(
    st.lists(st.integers(0, 2**62), unique=True, max_size=60),
    st.integers(0, 70),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(1, 60),
    st.sampled_from([1, 2, 7, 256]),
)
def test_the_rows_with_the_smallest_hashes_win(
    rows: list[int], size: int, seed: int, block: int, stretch: int
) -> None:
    key = splitmix64(seed & MASK)

    def order(row: int) -> tuple[int, int]:
        return splitmix64((row // stretch) ^ key), splitmix64(row ^ key)

    expected = sorted(sorted(rows, key=order)[:size])
    assert drawn(rows, size, seed, block, stretch) == expected


def test_two_cameras_show_the_same_moments() -> None:
    """Crops of two cameras in turns: what is drawn of each comes from the same stretches."""
    rows = np.arange(1, 100_001)
    odd, even = (drawn(rows[rows % 2 == part].tolist(), 1280, 3, 7000) for part in (1, 0))
    moments = [{row // STRETCH for row in camera} for camera in (odd, even)]
    assert len(moments[0] & moments[1]) >= 10
    # Ten whole stretches of 128 crops, and the ends of the log.
    assert max(map(len, moments)) <= 12


@pytest.mark.parametrize("stretch", [1, 8, 300])
def test_every_row_is_as_likely(stretch: int) -> None:
    rows, size, draws = list(range(1, 201)), 50, 2000
    chosen = np.zeros(201)
    for seed in range(draws):
        chosen[drawn(rows, size, seed, stretch=stretch)] += 1
    deviation = (chosen[1:] - draws * 0.25) / np.sqrt(draws * 0.25 * 0.75)
    assert np.abs(deviation).max() < 5
    assert 0.7 < deviation.std() < 1.3


@pytest.mark.parametrize("stretch", [1, 8, 256])
@pytest.mark.parametrize("gone", [0, 5, 99])
def test_a_row_that_is_gone_moves_nothing_else(gone: int, stretch: int) -> None:
    rows = list(range(1000))
    before = drawn(rows, 100, 7, stretch=stretch)
    without = [row for row in rows if row != before[gone]]
    after = drawn(without, 100, 7, stretch=stretch)
    assert set(before) - {before[gone]} < set(after)
    assert len(after) == 100
