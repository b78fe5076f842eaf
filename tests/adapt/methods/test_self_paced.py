"""The self-paced criterion against literal N x N membership masks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from adapt.methods.self_paced import overlap_distance, select, unify


def literal(
    labels: NDArray[np.int64],
    tight: NDArray[np.int64],
    loose: NDArray[np.int64],
    theta: float | None,
) -> tuple[list[bool], float]:
    """SpCL section 3.3 by masks: who stays in its cluster, and theta."""

    def mask(values: NDArray[np.int64]) -> NDArray[np.bool_]:
        same = (values[:, None] == values[None, :]) & (values[:, None] >= 0)
        np.fill_diagonal(same, val=True)
        return same

    def distance(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float64]:
        return 1.0 - (a & b).sum(1) / (a | b).sum(1)

    own = mask(labels)
    compact, independent = distance(own, mask(tight)), distance(own, mask(loose))
    best_compact = np.array([compact[row].min() for row in own])
    best_independent = np.array([independent[row].min() for row in own])
    if theta is None:
        first = [i for i in range(len(labels)) if own[i].sum() > 1 and own[i].argmax() == i]
        values = sorted(best_independent[i] for i in first)
        theta = values[min(len(values) - 1, round(0.9 * len(values)))] if values else 0.0
    keep = (labels >= 0) & (best_independent <= theta) & (compact <= best_compact)
    return keep.tolist(), theta


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_masks(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 12, 120)
    tight = np.where(random.random(120) < 0.3, random.integers(-1, 30, 120), labels)
    loose = np.where(random.random(120) < 0.3, labels // 2, labels)
    expected, theta = literal(labels, tight, loose, None)
    found = select(labels, tight, loose, theta=None)
    assert found.theta == pytest.approx(theta, abs=1e-12)
    assert (found.labels >= 0).tolist() == expected
    kept = found.labels >= 0
    assert (found.labels[kept] == labels[kept]).all()


def test_theta_of_epoch_zero_is_used_again() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(-1, 8, 90)
    loose = np.where(random.random(90) < 0.5, labels // 2, labels)
    strict, _ = literal(labels, labels, loose, 0.0)
    assert (select(labels, labels, loose, theta=0.0).labels >= 0).tolist() == strict
    assert sum(strict) < (labels >= 0).sum()


def test_stable_clusters_are_kept_whole() -> None:
    labels = np.array([0, 0, 0, 1, 1, -1])
    found = select(labels, labels, labels, theta=None)
    assert found.labels.tolist() == labels.tolist()
    assert found.theta == 0.0
    assert found.dissolved == 0


def test_no_cluster_at_all() -> None:
    labels = np.full(5, -1)
    assert select(labels, labels, labels, theta=None).labels.tolist() == [-1] * 5


def test_unify_numbers_clusters_then_outliers() -> None:
    assert unify(np.array([4, -1, 2, 4, -1])).tolist() == [1, 2, 0, 1, 3]


def test_overlap_of_equal_classes_is_zero_distance() -> None:
    classes = np.array([0, 0, 1, 2])
    assert overlap_distance(classes, classes).tolist() == [0.0] * 4


def test_an_epoch_without_clusters_sets_no_threshold() -> None:
    outliers = np.full(6, -1)
    nothing = select(outliers, outliers, outliers, theta=None)
    assert nothing.theta is None
    assert (nothing.labels == -1).all()
    labels = np.array([0, 0, 0, 1, 1, -1])
    assert select(labels, labels, labels, theta=nothing.theta).theta is not None
