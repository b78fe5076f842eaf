"""Asking deeper, over rows in memory: nothing that may be among the best is missed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.milvus.collection import Found
from service.milvus.deepening import asked, deepened, is_complete


@given(
    rows=st.integers(0, 400),
    levels=st.sampled_from([1, 3, 1000]),
    wanted=st.integers(1, 450),
    limit=st.sampled_from([2, 3, 7, 50, 16_384]),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_every_row_within_the_margin_is_found(
    rows: int, levels: int, wanted: int, limit: int, seed: int
) -> None:
    """Products with many ties; answers are cut at the limit, and ties broken by chance."""
    rng = np.random.default_rng(seed)
    margin = 0.01
    ids = np.sort(np.array([f"{n:032x}" for n in rng.choice(10_000, rows, replace=False)], "U32"))
    products = (rng.integers(levels, size=rows) / levels).astype(np.float32)
    questions = 0

    def ask(count: int, low: str, high: str) -> Found:
        nonlocal questions
        questions += 1
        assert count <= limit
        inside = np.flatnonzero((ids >= low) & ((ids < high) if high else True))
        order = inside[np.lexsort((rng.random(len(inside)), -products[inside]))][:count]
        return Found(ids[order], products[order], np.zeros((len(order), 1), np.float32))

    found = deepened(ask, wanted, limit, margin)
    bound = -np.inf if rows < wanted else np.sort(products)[rows - wanted] - margin
    assert sorted(found.ids.tolist()) == ids[products >= bound].tolist()
    assert len(set(found.ids.tolist())) == len(found.ids)
    assert questions <= 20 + 8 * rows // limit


def test_an_answer_is_complete_when_it_is_short_or_its_last_row_is_out_of_reach() -> None:
    def found(*products: float) -> Found:
        count = len(products)
        return Found(
            np.array([f"{n:032x}" for n in range(count)], "U32"),
            np.array(products, np.float32),
            np.zeros((count, 1), np.float32),
        )

    assert is_complete(found(0.9, 0.8), 3, 1, 0.01, -np.inf)
    assert is_complete(found(0.9, 0.8), 2, 1, 0.01, -np.inf)
    assert not is_complete(found(0.9, 0.895), 2, 1, 0.01, -np.inf)
    assert is_complete(found(0.9, 0.895), 2, 1, 0.01, 0.95)
    assert not is_complete(found(0.9, 0.1), 2, 2, 0.01, -np.inf)


def test_more_is_asked_for_than_is_wanted_but_not_more_than_the_limit() -> None:
    assert asked(10, 16_384) > 10
    assert asked(20_000, 16_384) == 16_384
