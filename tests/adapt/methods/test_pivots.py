"""Pivot scores, pivots and refinement against literal loops over crops."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from adapt.clustering.neighbours import Neighbours, nearest
from adapt.methods.pivots import drop_probability, misplaced, pivot_scores, pivots

Rule = Literal["first_above_mean_last", "best"]


def unit(count: int, seed: int, dimension: int = 6) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)) + 0.4
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32)


def literal_scores(near: Neighbours, min_cosine: float) -> list[float]:
    """As the released loop: over sorted neighbours, stopping at the first too far away."""
    every = [
        1.0 - s
        for row, values in zip(near.indices, near.similarities, strict=True)
        for j, s in zip(row, values, strict=True)
        if j >= 0
    ]
    mean = sum(max(d, 0.0) for d in every) / len(every)
    scores = []
    for i in range(len(near)):
        score = 0.0
        for j, similarity in zip(near.indices[i], near.similarities[i], strict=True):
            if j == i:
                continue
            if j < 0 or similarity < min_cosine:
                break
            score += 1.0 / (max(1.0 - similarity, 0.0) + mean)
        scores.append(score)
    return scores


@pytest.mark.parametrize("min_cosine", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("count", [3, 40])
def test_scores(count: int, min_cosine: float) -> None:
    near = nearest(unit(count, seed=count), 15)
    np.testing.assert_allclose(
        pivot_scores(near, min_cosine), literal_scores(near, min_cosine), rtol=1e-12
    )


def test_padding_is_nobody() -> None:
    indices = np.array([[0, 1, -1], [1, 0, -1], [2, -1, -1]], dtype=np.int32)
    similarities = np.array([[1.0, 0.8, 0.0], [1.0, 0.8, 0.0], [1.0, 0.0, 0.0]])
    near = Neighbours(indices, similarities)
    mean = (0.2 + 0.2) / 5
    expected = [1 / (0.2 + mean), 1 / (0.2 + mean), 0.0]
    np.testing.assert_allclose(pivot_scores(near, 0.0), expected)


def test_equal_crops_have_finite_scores() -> None:
    near = nearest(np.tile(unit(1, seed=0), (20, 1)), 15)
    assert np.isfinite(pivot_scores(near, 0.5)).all()


def literal_pivots(scores: NDArray[np.float64], labels: NDArray[np.int64], rule: Rule) -> list[int]:
    mean = sum(scores) / len(scores)
    chosen = []
    for cluster in range(labels.max(initial=-1) + 1):
        pivot, best = -1, -math.inf
        for i in range(len(labels)):
            if labels[i] != cluster:
                continue
            if rule == "first_above_mean_last" and scores[i] > mean:
                pivot = i
            if rule == "best" and scores[i] > best:
                pivot, best = i, scores[i]
        chosen.append(pivot)
    return chosen


@pytest.mark.parametrize("rule", ["first_above_mean_last", "best"])
@pytest.mark.parametrize("seed", range(8))
def test_pivots(rule: Rule, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.unique(random.integers(-1, 9, 60), return_inverse=True)[1].astype(np.int64) - 1
    scores = random.integers(0, 7, 60).astype(np.float64)  # with ties
    chosen = pivots(scores, labels, int(labels.max()) + 1, rule)
    assert chosen.tolist() == literal_pivots(scores, labels, rule)


def test_outliers_count_in_the_mean_and_are_no_pivots() -> None:
    scores = np.array([1.0, 2.0, 9.0])
    labels = np.array([0, 0, -1])
    assert pivots(scores, labels, 1, "first_above_mean_last").tolist() == [-1]
    assert pivots(scores, labels, 1, "best").tolist() == [1]


@pytest.mark.parametrize("seed", range(8))
def test_refinement(seed: int) -> None:
    random = np.random.default_rng(100 + seed)
    count = 80
    labels = np.unique(random.integers(-1, 7, count), return_inverse=True)[1].astype(np.int64) - 1
    cameras = random.integers(0, 3, count).astype(np.int32)
    local = cameras.astype(np.int64) * 100 + random.integers(0, 4, count)
    chosen = pivots(random.random(count), labels, int(labels.max()) + 1, "first_above_mean_last")
    dropped = set()
    for cluster, pivot in enumerate(chosen):
        if pivot < 0:
            continue
        for i in range(count):
            if labels[i] != cluster or cameras[i] != cameras[pivot]:
                continue
            if local[i] != local[pivot]:
                dropped.add(i)
    assert dropped
    assert set(np.flatnonzero(misplaced(labels, chosen, cameras, local)).tolist()) == dropped


def test_no_clusters() -> None:
    labels = np.full(5, -1, dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    cameras = np.zeros(5, dtype=np.int32)
    assert not misplaced(labels, none, cameras, labels).any()


def test_pace() -> None:
    assert [drop_probability("constant", epoch, 50) for epoch in (0, 49)] == [1.0, 1.0]
    paced = [drop_probability("cosine", epoch, 50) for epoch in range(51)]
    assert paced[0] == 1.0
    assert paced == sorted(paced, reverse=True)
    assert paced[50] == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
