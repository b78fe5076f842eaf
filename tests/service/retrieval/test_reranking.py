"""Re-ranking, against its equations on full matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.errors import InvalidArgument
from service.domain.rerank import CheckedRerank, Rerank, checked_rerank
from service.retrieval.reranking import reranked


def dense(points: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """d* of points 1.. to point 0, every matrix N x N."""
    count = len(points)
    d = 1 - points.astype(float) @ points.astype(float).T
    np.fill_diagonal(d, -1)  # itself first
    rank = np.argsort(d, axis=1, kind="stable")
    np.fill_diagonal(d, 0)

    def near(k: int) -> np.ndarray:
        table = np.zeros((count, count), bool)
        for p in range(count):
            table[p, rank[p, : k + 1]] = True
        return table

    def reciprocal(k: int) -> np.ndarray:
        return np.asarray(near(k) & near(k).T)

    whole, half = reciprocal(k1), reciprocal(max(1, round(k1 / 2)))
    v = np.zeros((count, count))
    for p in range(count):
        star = whole[p].copy()
        for c in np.flatnonzero(whole[p]):
            if (half[c] & whole[p]).sum() >= 2 / 3 * half[c].sum() - 1e-12:
                star |= half[c]
        v[p, star] = np.exp(-d[p, star])
    v = np.stack([v[rank[p, :k2]].mean(axis=0) for p in range(count)])
    jaccard = [
        1 - np.minimum(v[0], v[g]).sum() / np.maximum(v[0], v[g]).sum() for g in range(count)
    ]
    return np.asarray(((1 - weight) * np.array(jaccard) + weight * d[0])[1:])


def crowd(seed: int, people: int, each: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.standard_normal((people, 12)), each, axis=0)
    points = points + 0.6 * rng.standard_normal(points.shape)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 20), st.integers(1, 25),
       st.data())  # fmt: skip
def test_sparse_equals_dense(
    seed: int, people: int, each: int, k1: int, data: st.DataObject
) -> None:
    k2 = data.draw(st.integers(1, k1))
    weight = data.draw(st.floats(0, 1))
    points = crowd(seed, people, each)
    query, gallery = points[0], points[1:]
    scores = (gallery.astype(float) @ query.astype(float)).astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    found = reranked(gallery[order], scores[order], CheckedRerank(100, k1, k2, weight))
    expected = dense(np.concatenate((points[:1], gallery[order])), k1, k2, weight)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_blocks_change_nothing_and_equal_crops_do_no_harm() -> None:
    points = crowd(3, 30, 10)
    points[50:60] = points[40]
    scores = points[1:].astype(float) @ points[0].astype(float)
    order = np.argsort(-scores, kind="stable")
    ranked = np.concatenate((points[:1], points[1:][order]))
    found = reranked(ranked[1:], scores[order], CheckedRerank(300, 20, 6, 0.3))
    assert len(found) == 299, "more than one block"
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, dense(ranked, 20, 6, 0.3), atol=1e-9)


def test_it_brings_people_together() -> None:
    """The published method's point: more of the query's person among the first."""
    gained = []
    for seed in range(8):
        points = crowd(seed, 25, 8)
        scores = points[1:].astype(float) @ points[0].astype(float)
        order = np.argsort(-scores, kind="stable")
        found = reranked(points[1:][order], scores[order], CheckedRerank(200, 8, 3, 0.3))
        again = order[np.argsort(found, kind="stable")]
        gained.append((again[:7] < 7).sum() - (order[:7] < 7).sum())
    assert sum(gained) > 0


def test_nothing_to_rank() -> None:
    empty = np.empty((0, 4), np.float32)
    assert len(reranked(empty, np.empty(0, np.float32), CheckedRerank(10, 5, 2, 0.3))) == 0


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Rerank(candidates=9), "rerank.candidates"),
        (Rerank(candidates=201), "rerank.candidates"),
        (Rerank(k1=0), "rerank.k1"),
        (Rerank(k1=101), "rerank.k1"),
        (Rerank(k2=0), "rerank.k2"),
        (Rerank(k1=4, k2=5), "rerank.k2"),
        (Rerank(original_weight=-0.1), "rerank.original_weight"),
        (Rerank(original_weight=float("nan")), "rerank.original_weight"),
    ],
)
def test_bad_values_are_named(asked: Rerank, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_rerank(asked, top_k=10, grouped=False, page_token="", limit=200)
    assert caught.value.field == field


def test_what_is_left_open_is_as_published() -> None:
    def check(asked: Rerank | None, **changed: Any) -> CheckedRerank | None:
        told: dict[str, Any] = {
            "top_k": 10,
            "grouped": False,
            "page_token": "",
            "limit": 200,
        } | changed
        return checked_rerank(asked, **told)

    assert check(Rerank()) == CheckedRerank(100, 20, 6, 0.3)
    assert check(Rerank(k1=4), top_k=150) == CheckedRerank(150, 4, 4, 0.3)
    assert check(None, grouped=True) is None
    for wrong in ({"grouped": True}, {"page_token": "x"}):
        with pytest.raises(InvalidArgument):
            check(Rerank(), **wrong)
