"""Sparse average linkage against scipy on dense matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from adapt.clustering.graph import SparseDistances
from adapt.clustering.jaccard import jaccard_graph
from adapt.clustering.linkage import average_linkage
from adapt.clustering.neighbours import nearest

Matrix = NDArray[np.float32]
ALL = float(np.nextafter(np.float32(1.0), np.float32(0.0)))


def sparse(distances: Matrix) -> SparseDistances:
    """Every pair below 1."""
    kept = (distances < 1.0) & ~np.eye(len(distances), dtype=bool)
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
    return SparseDistances(starts, np.nonzero(kept)[1].astype(np.int32), distances[kept], ALL)


def dense_of(graph: SparseDistances) -> NDArray[np.float64]:
    result = np.ones((graph.rows, graph.rows))
    np.fill_diagonal(result, 0.0)
    rows = np.repeat(np.arange(graph.rows), np.diff(graph.indptr))
    result[rows, graph.indices] = graph.distances
    return result


def random_distances(seed: int) -> Matrix:
    """Few to all pairs below 1."""
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 50))
    upper = np.triu(random.random((count, count)), 1)
    upper[np.triu(random.random((count, count)) < random.random(), 1)] = 1.0
    return (upper + upper.T).astype(np.float32)


def groups(labels: NDArray[np.integer]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@pytest.mark.parametrize("seed", range(60))
def test_heights_and_every_cut_are_scipys(seed: int) -> None:
    distances = random_distances(seed)
    tree = average_linkage(sparse(distances))
    reference = linkage(squareform(distances.astype(np.float64)), "average")
    merges = len(tree.heights)
    np.testing.assert_allclose(tree.heights, reference[:merges, 2])
    assert np.all(reference[merges:, 2] > 1.0 - 1e-9)
    count = connected_components(csr_matrix(distances < 1.0))[0]
    assert tree.components == count
    for clusters in range(count, tree.rows + 1):
        labels = tree.cut_at_count(clusters)
        assert groups(labels) == groups(fcluster(reference, clusters, "maxclust"))
    for height in (0.3, 0.6, 0.9):
        assert groups(tree.cut_at_distance(height)) == groups(
            fcluster(reference, height, "distance")
        )


@pytest.mark.parametrize("name", ["clustered", "loose", "few"])
def test_jaccard_distances_of_features(data_set: Callable[[str], Matrix], name: str) -> None:
    features = data_set(name)
    graph = jaccard_graph(
        nearest(features, 15), features=features, max_distance=ALL, k1=15, k2=4, max_pairs=10**6
    )
    assert isinstance(graph, SparseDistances)
    reference = linkage(squareform(dense_of(graph)), "average")
    tree = average_linkage(graph)
    np.testing.assert_allclose(tree.heights, reference[: len(tree.heights), 2], atol=1e-12)
    wanted = len(features) // 5
    if wanted >= tree.components:
        assert len(np.unique(tree.cut_at_count(wanted))) == wanted


@pytest.mark.parametrize("seed", range(10))
def test_pairs_stored_at_distance_1_are_as_absent_ones(seed: int) -> None:
    distances = random_distances(seed)
    distances[0, 1] = distances[1, 0] = 1.0
    rows = len(distances)
    others = ~np.eye(rows, dtype=bool)
    full = SparseDistances(
        np.arange(rows + 1, dtype=np.int64) * (rows - 1),
        np.nonzero(others)[1].astype(np.int32),
        distances[others],
        1.0,
    )
    tree, expected = average_linkage(full), average_linkage(sparse(distances))
    np.testing.assert_array_equal(tree.heights, expected.heights)
    assert np.array_equal(
        tree.cut_at_count(tree.components), expected.cut_at_count(expected.components)
    )


def test_the_graph_is_left_as_it_was() -> None:
    graph = sparse(random_distances(3))
    before = [graph.indices.copy(), graph.distances.copy()]
    average_linkage(graph)
    assert np.array_equal(before[0], graph.indices)
    assert np.array_equal(before[1], graph.distances)


def test_labels_are_numbered_by_first_row() -> None:
    for seed in range(10):
        tree = average_linkage(sparse(random_distances(seed)))
        labels = tree.cut_at_count(tree.rows // 2)
        firsts = [int(np.flatnonzero(labels == label)[0]) for label in range(labels.max() + 1)]
        assert firsts == sorted(firsts)


def test_fewer_clusters_than_components_are_not_made() -> None:
    distances = np.ones((6, 6), dtype=np.float32)
    for first in (0, 2, 4):
        distances[first, first + 1] = distances[first + 1, first] = 0.5
    tree = average_linkage(sparse(distances))
    assert tree.cut_at_count(2).tolist() == [0, 0, 1, 1, 2, 2]
    assert tree.components == 3


@pytest.mark.parametrize("distance", [0.0, 0.25])
def test_equal_distances_end(distance: float) -> None:
    distances = np.full((40, 40), distance, dtype=np.float32)
    np.fill_diagonal(distances, 0.0)
    tree = average_linkage(sparse(distances))
    np.testing.assert_allclose(tree.heights, distance)
    assert len(tree.heights) == 39
    assert tree.cut_at_count(1).tolist() == [0] * 40


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_no_pairs(rows: int) -> None:
    empty = np.empty(0, dtype=np.int32)
    starts = np.zeros(rows + 1, dtype=np.int64)
    graph = SparseDistances(starts, empty, empty.astype(np.float32), ALL)
    assert average_linkage(graph).cut_at_count(1).tolist() == list(range(rows))


def test_a_chain_of_rows_that_each_prefer_the_next() -> None:
    # The worst order for a nearest-neighbour chain: it grows to all rows before the first merge.
    count = 200
    distances = np.ones((count, count), dtype=np.float32)
    for i in range(count - 1):
        distances[i, i + 1] = distances[i + 1, i] = 0.9 - 0.004 * i
    reference = linkage(squareform(distances.astype(np.float64), checks=False), "average")
    tree = average_linkage(sparse(distances))
    np.testing.assert_allclose(tree.heights, reference[: len(tree.heights), 2], rtol=1e-7)
