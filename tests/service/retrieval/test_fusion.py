"""Fused queries, against the equations and brute force over all rows."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.errors import InvalidArgument
from service.domain.ports import IndexHits
from service.domain.query import SearchMode
from service.retrieval.fusion import mean_query, nearer_to, union
from service.retrieval.quality import qualities, sharpness

NONE = np.empty((0, 8), np.float32)


def unit(rng: np.random.Generator, count: int, dimension: int = 8) -> np.ndarray:
    rows = rng.standard_normal((count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def hits(query: np.ndarray, rows: np.ndarray, count: int) -> IndexHits:
    scores = (rows.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    order = sorted(range(len(rows)), key=lambda n: (-scores[n], n))[:count]
    ids = [UUID(int=n + 1) for n in order]
    return IndexHits(ids, scores[order], SearchMode.EXACT_GATHER, len(rows), len(rows))


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 40), st.integers(1, 45))
def test_the_union_of_the_best_is_the_best_of_the_maximum(
    seed: int, positives: int, rows: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    gallery = unit(rng, rows)
    if rows > 3:
        gallery[1] = gallery[0]
    queries = unit(rng, positives)
    every = (gallery.astype(np.float64) @ queries.astype(np.float64).T).astype(np.float32)
    best = every.max(axis=1) if rows else np.empty(0, np.float32)
    order = sorted(range(rows), key=lambda n: (-best[n], n))[:count]
    found = union([hits(query, gallery, count) for query in queries], count)
    assert [key.int - 1 for key in found.ids] == order
    np.testing.assert_array_equal(found.scores, best[order])


def test_a_scan_among_the_lists_is_told() -> None:
    rng = np.random.default_rng(1)
    one, other = hits(unit(rng, 1)[0], unit(rng, 3), 2), hits(unit(rng, 1)[0], unit(rng, 3), 2)
    assert union([one, other], 2).mode is SearchMode.EXACT_GATHER
    scanned = IndexHits(other.ids, other.scores, SearchMode.EXACT_SCAN, 9, 10)
    found = union([one, scanned], 2)
    assert (found.mode, found.rows_scanned, found.rows_total) == (SearchMode.EXACT_SCAN, 9, 10)


def test_the_mean_is_rocchio_term_by_term() -> None:
    rng = np.random.default_rng(2)
    positives, negatives = unit(rng, 3), unit(rng, 2)
    weights, unwanted = [1.0, 2.5, 0.5], [3.0, 1.0]
    expected = np.zeros(8)
    for weight, row in zip(weights, positives, strict=True):
        expected += weight * row.astype(float) / 4.0
    for weight, row in zip(unwanted, negatives, strict=True):
        expected -= 0.2 * weight * row.astype(float) / 4.0
    expected /= np.sqrt((expected**2).sum())
    found = mean_query(positives, weights, negatives, unwanted)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Only the weights' ratio counts.
    doubled = mean_query(positives, [2 * w for w in weights], negatives, [6.0, 2.0])
    np.testing.assert_allclose(doubled, found, atol=1e-6)


def test_one_example_alone_is_the_query_to_the_bit() -> None:
    rows = unit(np.random.default_rng(3), 1)
    np.testing.assert_array_equal(mean_query(rows, [7.0], NONE, []), rows[0])


def test_examples_that_cancel_are_refused() -> None:
    rows = unit(np.random.default_rng(4), 1)
    with pytest.raises(InvalidArgument, match="cancel") as caught:
        mean_query(np.concatenate((rows, -rows)), [1.0, 1.0], NONE, [])
    assert caught.value.field == "positives"


def test_rows_nearer_to_a_negative_are_named() -> None:
    rng = np.random.default_rng(5)
    negatives, rows = unit(rng, 3), unit(rng, 50)
    scores = rng.uniform(-1, 1, 50).astype(np.float32)
    scores[0] = np.float32(max(float(rows[0].astype(float) @ n.astype(float)) for n in negatives))
    expected = [
        max(np.float32(float(row.astype(float) @ n.astype(float))) for n in negatives) > score
        for row, score in zip(rows, scores, strict=True)
    ]
    found = nearer_to(negatives, rows, scores)
    assert found.tolist() == expected
    assert not found[0], "as near to both is not nearer"
    assert 0 < found.sum() < 50


def test_an_example_that_disagrees_and_a_blurred_one_count_less() -> None:
    rng = np.random.default_rng(6)
    rows = unit(rng, 4)
    expected = [
        max(0.0, np.mean([rows[i].astype(float) @ rows[j] for j in range(4) if j != i]))
        for i in range(4)
    ]
    np.testing.assert_allclose(qualities(rows, None), expected, atol=1e-6)
    same = np.repeat(rows[:1], 3, axis=0)
    np.testing.assert_allclose(qualities(same, [4.0, 1.0, 2.0]), [1, 0.25, 0.5], atol=1e-6)
    np.testing.assert_array_equal(qualities(rows[:1], [3.0]), [1.0])
    opposite = np.concatenate((rows[:1], -rows[:1]))
    np.testing.assert_array_equal(qualities(opposite, [1.0, 2.0]), [1.0, 1.0])
    np.testing.assert_allclose(qualities(same, [0.0, 0.0, 0.0]), [1, 1, 1], atol=1e-6)


def test_sharpness_is_the_spread_of_the_laplacian() -> None:
    rng = np.random.default_rng(7)
    image = rng.integers(0, 256, (12, 9, 3)).astype(np.uint8)
    gray = image.astype(float).mean(axis=2)
    values = [
        gray[r - 1, c] + gray[r + 1, c] + gray[r, c - 1] + gray[r, c + 1] - 4 * gray[r, c]
        for r in range(1, 11)
        for c in range(1, 8)
    ]
    assert sharpness(image) == pytest.approx(np.std(values))
    assert sharpness(np.full((8, 8, 3), 90, np.uint8)) == 0
