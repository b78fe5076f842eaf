"""Silhouette from sparse pairs against scikit-learn's from the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import silhouette_score

from adapt.clustering.graph import SparseDistances
from adapt.clustering.silhouette import WORST, silhouette


def graph_of(distances: NDArray[np.float32]) -> SparseDistances:
    kept = (distances < 1.0) & ~np.eye(len(distances), dtype=bool)
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
    return SparseDistances(starts, np.nonzero(kept)[1].astype(np.int32), distances[kept], 1.0)


@pytest.mark.parametrize("seed", range(30))
def test_scikit_learns_value(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(4, 60))
    upper = np.triu(random.random((count, count)), 1)
    upper[np.triu(random.random((count, count)) < random.random(), 1)] = 1.0
    distances = (upper + upper.T).astype(np.float32)
    clusters = int(random.integers(2, count))
    labels = random.permutation(np.r_[np.arange(clusters), random.integers(0, clusters, count)])
    labels = np.unique(labels[:count], return_inverse=True)[1]
    assert 2 <= labels.max() + 1 < count  # what scikit-learn accepts
    expected = silhouette_score(distances, labels, metric="precomputed")
    assert silhouette(graph_of(distances), labels) == pytest.approx(expected, abs=1e-6)


def test_equal_rows_of_one_cluster_are_perfect() -> None:
    distances = np.ones((4, 4), dtype=np.float32)
    distances[:2, :2] = distances[2:, 2:] = 0.0
    assert silhouette(graph_of(distances), np.array([0, 0, 1, 1])) == pytest.approx(1.0)
    assert silhouette(graph_of(distances), np.array([0, 1, 0, 1])) == pytest.approx(-0.5)


def test_rows_equal_to_everything_count_nothing() -> None:
    distances = np.zeros((6, 6), dtype=np.float32)
    assert silhouette(graph_of(distances), np.array([0, 0, 0, 1, 1, 1])) == 0.0


def test_one_cluster_has_none_and_singletons_count_nothing() -> None:
    distances = np.full((5, 5), 0.5, dtype=np.float32)
    assert silhouette(graph_of(distances), np.zeros(5, dtype=np.int64)) == WORST
    assert silhouette(graph_of(distances), np.arange(5)) == 0.0
