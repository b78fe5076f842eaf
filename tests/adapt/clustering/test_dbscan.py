"""DBSCAN against scikit-learn on arbitrary graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from adapt.clustering.dbscan import dbscan
from adapt.clustering.graph import SparseDistances, UpperBlock, symmetric
from resight.errors import InvalidArgument


def graph_of(distances: np.ndarray, radius: float, cut: int) -> SparseDistances:
    blocks = []
    for start in range(0, len(distances), cut):
        rows = distances[start : start + cut]
        upper = (rows <= np.float32(radius)) & (
            np.arange(len(distances)) > np.arange(start, start + len(rows))[:, None]
        )
        row, column = np.nonzero(upper)
        order = np.lexsort((-column, row))  # columns of a row come in no useful order
        row, column = row[order], column[order]
        blocks.append(
            UpperBlock(
                start, np.bincount(row, minlength=len(rows)), column.astype(np.int32),
                rows[row, column],
            )
        )  # fmt: skip
    return symmetric(blocks, len(distances), radius)


@given(
    rows=st.integers(1, 40),
    density=st.floats(0.01, 0.5),
    seed=st.integers(0, 10**6),
    min_samples=st.integers(1, 7),
    eps=st.sampled_from([0.1, 0.5, 0.9]),
    cut=st.integers(1, 50),
)
@settings(max_examples=150, deadline=None)
def test_labels_equal_scikit_learn(
    rows: int, density: float, seed: int, min_samples: int, eps: float, cut: int
) -> None:
    rng = np.random.default_rng(seed)
    # Tenths, so that many distances equal eps; zeros are distances, not missing pairs.
    distances = rng.integers(0, 10, (rows, rows)).astype(np.float32) / np.float32(10)
    distances[rng.random((rows, rows)) > density] = 1
    distances = np.minimum(distances, distances.T)
    np.fill_diagonal(distances, 0)
    expected = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distances)
    graph = graph_of(distances, 0.9, cut)
    np.testing.assert_array_equal(dbscan(graph, eps=eps, min_samples=min_samples), expected)


def test_a_border_row_joins_the_first_cluster_that_reaches_it() -> None:
    # 0-1-2 and 4-5-6 are dense; 3 is within eps of one core of each and no core itself.
    distances = np.ones((7, 7), dtype=np.float32)
    for group in ([0, 1, 2], [4, 5, 6]):
        distances[np.ix_(group, group)] = 0.1
    distances[3, 4] = distances[4, 3] = distances[3, 2] = distances[2, 3] = 0.1
    np.fill_diagonal(distances, 0)
    graph = graph_of(distances, 0.5, 7)
    assert dbscan(graph, eps=0.5, min_samples=4).tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_settings_that_cannot_work_are_refused() -> None:
    graph = graph_of(np.zeros((2, 2), dtype=np.float32), 0.5, 2)
    for eps in (0.6, 0.0, -1.0, float("nan")):
        with pytest.raises(InvalidArgument, match="eps"):
            dbscan(graph, eps=eps, min_samples=2)
    with pytest.raises(InvalidArgument, match="min_samples"):
        dbscan(graph, eps=0.5, min_samples=0)
