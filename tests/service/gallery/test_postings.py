"""Inverted columns beside a loop over the column."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.gallery.postings import Postings


@given(
    column=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    extra=st.integers(0, 3),
    in_order=st.booleans(),
    wanted=st.sets(st.integers(0, 12)),
)
def test_rows_of_codes_are_those_a_loop_finds(
    column: list[int], extra: int, in_order: bool, wanted: set[int]
) -> None:
    if in_order:
        column.sort()
    codes = max(column) + 1 + extra
    postings = Postings.of(np.array(column, np.int32), codes)
    assert in_order <= (postings.order is None)
    chosen = sorted(code for code in wanted if code < codes)
    expected = [row for row, code in enumerate(column) if code in chosen]
    rows = postings.rows(np.array(chosen, np.int64))
    assert rows.dtype == np.int64
    assert rows.tolist() == expected
    assert postings.count(np.array(chosen, np.int64)) == len(expected)


def test_columns_beyond_sixteen_bits() -> None:
    rng = np.random.default_rng(0)
    column = rng.permutation(70_000).astype(np.int32)
    postings = Postings.of(column, 70_000)
    for codes in ([0], [69_999], [5, 65_535, 65_536]):
        expected = np.flatnonzero(np.isin(column, codes)).tolist()
        assert postings.rows(np.array(codes)).tolist() == expected
