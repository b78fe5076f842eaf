"""Sparse clustering against the dense procedure and scikit-learn's DBSCAN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from adapt.clustering.cluster import ClusterSettings, cluster
from adapt.clustering.dbscan import dbscan
from adapt.clustering.graph import SparseDistances, StreamedDistances
from adapt.clustering.jaccard import jaccard_graph, jaccard_rows
from adapt.clustering.neighbours import nearest
from resight.errors import InvalidArgument

NAMES = [
    "random", "clustered", "loose", "duplicates", "copies", "near-copies",
    "few", "identical", "one",
]  # fmt: skip
SHAPES = [(30, 6), (15, 4), (7, 1), (3, 2), (1, 1)]


def published_labels(distances: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    model = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    return model.fit_predict(distances)


def as_dense(graph: SparseDistances) -> np.ndarray:
    full = np.full((graph.rows, graph.rows), np.nan, dtype=np.float32)
    rows = np.repeat(np.arange(graph.rows), np.diff(graph.indptr))
    full[rows, graph.indices] = graph.distances
    return full


@pytest.mark.parametrize("convention", ["released", "zhong"])
@pytest.mark.parametrize("name", NAMES)
def test_encodings_distances_and_labels_equal_the_dense_procedure(
    name: str, convention: Any, data_set: Callable[[str], np.ndarray], dense: Any
) -> None:
    features = data_set(name)
    for k1, k2 in SHAPES:
        neighbours = nearest(features, k1 + (convention == "zhong"))
        ranking = dense.ranking(features, k1 + (convention == "zhong"))
        np.testing.assert_array_equal(neighbours.indices, ranking)
        shape: dict[str, Any] = {"k1": k1, "k2": k2, "convention": convention}
        rows = jaccard_rows(neighbours, features=features, **shape)
        v = np.zeros((len(features), len(features)))
        v[np.repeat(np.arange(len(features)), np.diff(rows.indptr)), rows.indices] = rows.values
        expected_v = dense.encodings(features, **shape)
        np.testing.assert_array_equal(v != 0, expected_v != 0)
        np.testing.assert_allclose(v, expected_v, rtol=1e-10)
        expected = dense.distances(expected_v)
        for radius in (0.3, 0.9):
            graph = jaccard_graph(
                neighbours, features=features, max_distance=radius, threads=2, **shape
            )
            assert isinstance(graph, SparseDistances)
            close = expected <= np.float32(radius)
            np.fill_diagonal(close, False)
            found = as_dense(graph)
            np.testing.assert_array_equal(~np.isnan(found), close)
            np.testing.assert_allclose(found[close], expected[close], atol=1e-7)
            for row in range(graph.rows):
                columns = graph.indices[graph.indptr[row] : graph.indptr[row + 1]]
                assert (np.diff(columns) > 0).all()
        for min_samples in (1, 2, 4, 9):
            settings = ClusterSettings(eps=0.3, gap=0.4, min_samples=min_samples, **shape)
            result = cluster(features, settings)
            np.testing.assert_array_equal(result.labels, result.labels_at(0.3))
            for eps in (0.3, 0.5, 0.6, 0.7):
                np.testing.assert_array_equal(
                    result.labels_at(eps), published_labels(expected, eps, min_samples)
                )


def test_labels_of_two_thousand_rows_equal_the_dense_procedure(
    data_set: Callable[[str], np.ndarray], dense: Any
) -> None:
    features = data_set("large")
    for convention in ("released", "zhong"):
        expected = dense.distances(dense.encodings(features, 30, 6, convention))
        result = cluster(features, ClusterSettings(gap=0.1, convention=convention))
        assert result.clusters > 50
        np.testing.assert_array_equal(result.labels, published_labels(expected, 0.6, 4))
        for eps in (0.5, 0.58, 0.62, 0.7):
            np.testing.assert_array_equal(result.labels_at(eps), published_labels(expected, eps, 4))
        assert result.outliers == np.count_nonzero(result.labels == -1)
        assert result.largest == np.bincount(result.labels[result.labels >= 0]).max()


def test_a_streamed_graph_gives_the_same_labels(data_set: Callable[[str], np.ndarray]) -> None:
    features = data_set("clustered")
    neighbours = nearest(features, 30)
    held = jaccard_graph(neighbours, features=features, max_distance=0.6)
    streamed = jaccard_graph(neighbours, features=features, max_distance=0.6, max_pairs=10)
    assert isinstance(held, SparseDistances)
    assert isinstance(streamed, StreamedDistances)
    for eps, min_samples in ((0.6, 4), (0.4, 3), (0.5, 12)):
        np.testing.assert_array_equal(
            dbscan(streamed, eps=eps, min_samples=min_samples),
            dbscan(held, eps=eps, min_samples=min_samples),
        )


def test_thousands_of_equal_crops_make_one_cluster_without_a_pair_list() -> None:
    result = cluster(np.ones((3500, 4), dtype=np.float32))
    assert isinstance(result.graph, StreamedDistances)
    assert (result.labels == 0).all()


def test_no_rows_give_no_labels(data_set: Callable[[str], np.ndarray]) -> None:
    result = cluster(data_set("none"))
    assert result.labels.shape == (0,)
    assert (result.clusters, result.outliers, result.largest) == (0, 0, 0)


def test_rows_of_any_length_are_normalised_and_the_callers_array_is_left_alone(
    data_set: Callable[[str], np.ndarray],
) -> None:
    unit = data_set("clustered")
    scaled = unit * np.random.default_rng(0).uniform(0.1, 9, (len(unit), 1)).astype(np.float32)
    kept = scaled.copy()
    np.testing.assert_array_equal(cluster(scaled).labels, cluster(unit).labels)
    np.testing.assert_array_equal(scaled, kept)
    np.testing.assert_array_equal(cluster(scaled.astype(np.float64)).labels, cluster(unit).labels)
    cluster(scaled, overwrite=True)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-6)


def test_fewer_rows_than_k1_is_said(data_set: Callable[[str], np.ndarray]) -> None:
    assert cluster(data_set("clustered")).notes == ()
    assert "9 crops are fewer than k1 (30)" in cluster(data_set("few")).notes[0]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones(4, np.float32), r"shape \(4,\)"),
        (np.ones((2, 0), np.float32), r"shape \(2, 0\)"),
        (np.ones((2, 2), np.int64), "int64"),
        (np.array([[1, 0], [np.nan, 1]], np.float32), "not finite, the first is row 1"),
        (np.array([[1, 0], [1, 1], [np.inf, 1]], np.float32), "not finite, the first is row 2"),
        (np.array([[0, 0], [1, 1]], np.float32), "all zero .* row 0"),
    ],
)
def test_features_that_cannot_work_are_refused(features: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        cluster(features)
    assert caught.value.field == "features"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("k1", 0), ("k1", 1001), ("k2", 0), ("k2", 31), ("eps", 0.0), ("eps", 1.0),
        ("eps", float("nan")), ("gap", -0.1), ("gap", 0.4), ("min_samples", 0),
        ("convention", "other"),
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=setting) as caught:
        ClusterSettings(**{setting: value})
    assert caught.value.field == setting


def test_a_radius_beyond_the_graph_is_refused(data_set: Callable[[str], np.ndarray]) -> None:
    result = cluster(data_set("few"), ClusterSettings(gap=0.02))
    result.labels_at(0.62)
    with pytest.raises(InvalidArgument, match=r"up to 0\.62"):
        result.labels_at(0.63)
