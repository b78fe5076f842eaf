"""The vectorised Market protocol against a literal one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapt.evaluation.market import evaluate_ranking
from resight.errors import FailedPrecondition, InvalidArgument


def literal(
    query: np.ndarray, gallery: np.ndarray, q_ids: Any, g_ids: Any, q_cams: Any, g_cams: Any
) -> tuple[float, list[float], int]:
    """One query, one gallery crop at a time; similarities of small integers are exact."""
    precisions, first_ranks = [], []
    for q in range(len(query)):
        scored = [(-float(query[q] @ gallery[g]), g) for g in range(len(gallery))]
        rank = hits = 0
        total = 0.0
        first = 0
        for _, g in sorted(scored):
            if g_ids[g] == -1 or q_ids[q] == -1:
                continue
            if q_cams is not None and g_ids[g] == q_ids[q] and g_cams[g] == q_cams[q]:
                continue
            rank += 1
            if g_ids[g] == q_ids[q]:
                hits += 1
                total += hits / rank
                first = first or rank
        if hits:
            precisions.append(total / hits)
            first_ranks.append(first)
    cmc = [sum(f <= r for f in first_ranks) / len(first_ranks) for r in range(1, 51)]
    return sum(precisions) / len(precisions), cmc, len(precisions)


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("levels", [2, 3, 50])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_literal_protocol(seed: int, levels: int, cameras: bool) -> None:
    rng = np.random.default_rng(seed)
    people = 12
    # Few levels of small integers: most gallery crops tie with others.
    query = rng.integers(0, levels, (40, 6)).astype(np.float32)
    gallery = rng.integers(0, levels, (150, 6)).astype(np.float32)
    q_ids = rng.integers(1, people + 3, 40)  # the last three are not in the gallery
    q_ids[rng.random(40) < 0.05] = -1
    g_ids = rng.integers(0, people, 150)  # 0: distractors
    g_ids[rng.random(150) < 0.1] = -1
    q_cams, g_cams = rng.integers(0, 3, 40), rng.integers(0, 3, 150)
    g_cams[g_ids == 5] = 0  # person 5 is seen by one camera only
    q_cams[q_ids == 5] = 0
    sides = (q_cams, g_cams) if cameras else (None, None)
    expected_map, expected_cmc, queries = literal(query, gallery, q_ids, g_ids, *sides)
    results = [
        evaluate_ranking(query, gallery, q_ids, g_ids, *sides, block=block)
        for block in (None, 1, 7, 1000)
    ]
    for result in results:
        assert result.map == pytest.approx(expected_map, rel=1e-12)
        np.testing.assert_allclose(result.cmc, expected_cmc, rtol=1e-12)
        assert result.queries == queries
        assert result.gallery == np.count_nonzero(g_ids != -1)
        left_out = result.queries_without_identity + result.queries_without_match
        assert queries + left_out == np.count_nonzero(q_ids != -1)
        assert result.queries_without_identity == np.count_nonzero(
            (q_ids != -1) & ~np.isin(q_ids, g_ids)
        )


def test_a_worked_example() -> None:
    query = np.array([[1.0, 0.0]])
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    gallery = np.array([[s, np.sqrt(1 - s * s)] for s in scores])
    # junk, own camera, stranger, match at rank 2, match at rank 3
    result = evaluate_ranking(query, gallery, [7], [-1, 7, 3, 7, 7], [0], [1, 0, 1, 1, 2])
    assert result.map == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (result.rank(1), result.rank(2), result.gallery) == (0.0, 1.0, 4)


def test_a_perfect_and_a_reversed_ranking() -> None:
    gallery = np.eye(4)
    ids, cams = [1, 2, 3, 4], [1, 1, 1, 1]
    perfect = evaluate_ranking(np.eye(4), gallery, ids, ids, [0] * 4, cams)
    assert (perfect.map, perfect.rank(1)) == (1.0, 1.0)
    worst = evaluate_ranking(-np.eye(4), gallery, ids, ids, [0] * 4, cams)
    assert (worst.map, worst.rank(3), worst.rank(4)) == (0.25, 0.0, 1.0)


@pytest.mark.parametrize(
    ("q_ids", "g_ids", "message"),
    [
        ([1, 2], [3, 4, 5], "none of the 2 queries' identities appears"),
        ([1, 2], [1, 2, 3], "for 2 queries .* own camera.*--ignore-cameras"),
        ([1, 9], [1, 2, 3], "for 1 queries .* and 1 queries' identities are not"),
        ([1, 2], [-1, -1, -1], "2 queries and 0 gallery crops"),
        ([-1, -1], [1, 2, 3], "0 queries and 3 gallery crops"),
    ],
)
def test_when_nothing_can_be_scored_the_cause_is_named(
    q_ids: list[int], g_ids: list[int], message: str
) -> None:
    with pytest.raises(FailedPrecondition, match=message):
        evaluate_ranking(np.ones((2, 2)), np.ones((3, 2)), q_ids, g_ids, [0, 0], [0, 0, 0])


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"q_ids": [1]}, "q_ids"),
        ({"g_ids": [1.0, 2.0]}, "g_ids"),
        ({"g_cams": [1]}, "g_cams"),
        ({"q_cams": None}, "q_cams"),
        ({"gallery": np.ones((2, 3))}, "gallery"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changed: dict[str, Any], field: str) -> None:
    good: dict[str, Any] = {
        "query": np.ones((2, 2)), "gallery": np.ones((2, 2)), "q_ids": [1, 2], "g_ids": [1, 2],
        "q_cams": [0, 0], "g_cams": [1, 1],
    }  # fmt: skip
    evaluate_ranking(**good)
    with pytest.raises(InvalidArgument) as caught:
        evaluate_ranking(**(good | changed))
    assert caught.value.field == field
