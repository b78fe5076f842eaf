"""Clusters of one camera against scipy and scikit-learn on dense distances; too many pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score, silhouette_score

from adapt.clustering.graph import SparseDistances
from adapt.clustering.jaccard import jaccard_graph
from adapt.clustering.neighbours import nearest
from adapt.clustering.silhouette import WORST
from adapt.methods.local_clusters import LocalClusters, local_clusters, too_few
from adapt.training.calr_settings import CalrSettings, LocalClusterSettings


def settings(mode: str = "ratio", value: float = 0.2, **more: object) -> CalrSettings:
    cut = LocalClusterSettings(mode=mode, value=value)  # type: ignore[arg-type]
    return CalrSettings(local_clusters=cut, **more)  # type: ignore[arg-type]


def features(people: int = 20, each: int = 7, noise: float = 0.5) -> NDArray[np.float32]:
    random = np.random.default_rng(5)
    rows = np.repeat(random.standard_normal((people, 24)), each, axis=0)
    rows += noise * random.standard_normal(rows.shape)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32)


def dense(rows: NDArray[np.float32], k1: int, k2: int) -> NDArray[np.float64]:
    """J of every pair, from a graph that reaches to all that is below 1."""
    graph = jaccard_graph(
        nearest(rows, k1), features=rows, max_distance=float(np.nextafter(np.float32(1), 0)),
        k1=k1, k2=k2, max_pairs=10**7,
    )  # fmt: skip
    assert isinstance(graph, SparseDistances)
    result = np.ones((len(rows), len(rows)))
    result[np.repeat(np.arange(len(rows)), np.diff(graph.indptr)), graph.indices] = graph.distances
    np.fill_diagonal(result, 0.0)
    return result


@pytest.mark.parametrize(
    ("mode", "value", "criterion", "level"),
    [("ratio", 0.2, "maxclust", 28), ("count", 20, "maxclust", 20),
     ("distance", 0.7, "distance", 0.7)],
)  # fmt: skip
def test_clusters_and_silhouette_are_those_of_dense_distances(
    mode: str, value: float, criterion: str, level: float
) -> None:
    rows = features(noise=0.9)
    distances = dense(rows, 15, 4)
    expected = fcluster(linkage(squareform(distances), "average"), level, criterion)
    found = local_clusters(rows, settings(mode, value))
    assert found.notes == ()
    assert found.count == len(np.unique(expected))
    # Equal distances may be merged in either order.
    assert adjusted_rand_score(expected, found.labels) > 0.99
    score = silhouette_score(distances, found.labels, metric="precomputed")
    assert found.silhouette == pytest.approx(score, abs=1e-6)


def test_the_true_groups_are_found_and_score_best() -> None:
    rows = features()
    people = np.repeat(np.arange(20), 7)
    right = local_clusters(rows, settings("count", 20))
    assert adjusted_rand_score(people, right.labels) > 0.95
    wrong = local_clusters(rows, settings("count", 60))
    assert right.silhouette > wrong.silhouette


def test_more_components_than_clusters_asked_for_are_reported() -> None:
    rows = np.repeat(np.eye(6, dtype=np.float32), 10, axis=0)
    found = local_clusters(rows, settings("count", 3, intra_k1=8))
    assert found.count == 6
    assert "3 local clusters were asked for" in found.notes[0]


def test_too_many_pairs_narrow_the_graph_and_are_reported() -> None:
    rows = features(noise=0.9)
    whole = local_clusters(rows, settings())
    pairs = int(np.count_nonzero(np.triu(dense(rows, 15, 4) < 1.0, 1)))
    assert local_clusters(rows, settings(), max_pairs=pairs).notes == ()
    narrowed = local_clusters(rows, settings(), max_pairs=pairs - 1)
    assert "count as 1" in narrowed.notes[0]
    assert adjusted_rand_score(whole.labels, narrowed.labels) > 0.9
    assert narrowed.count == whole.count


def test_labellings_are_compared_where_both_graphs_reach() -> None:
    rows = features(noise=0.9)
    distances = dense(rows, 15, 4)
    pairs = int(np.count_nonzero(np.triu(distances < 1.0, 1)))
    wide = local_clusters(rows, settings("count", 8))
    narrow = local_clusters(rows, settings("count", 8), max_pairs=int(0.3 * pairs))
    radii = [1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5]
    reach = radii[-len(narrow.silhouettes)]
    assert f"further than {reach} count as 1" in narrow.notes[0]

    def at(radius: float, labels: NDArray[np.int64]) -> float:
        seen = np.where(distances > radius, 1.0, distances)
        return float(silhouette_score(seen, labels, metric="precomputed"))

    for found, reached in ((wide, radii), (narrow, radii[radii.index(reach) :])):
        expected = [at(radius, found.labels) for radius in reached]
        assert found.silhouettes == pytest.approx(expected, abs=1e-6)
    # For want of pairs alone the narrow graph's silhouette is the higher.
    assert narrow.silhouette > wide.silhouette
    assert at(reach, narrow.labels) <= at(reach, wide.labels) + 1e-9
    assert not narrow.better_than(wide)
    better = local_clusters(rows, settings("count", 20))
    assert at(reach, better.labels) > at(reach, narrow.labels)
    assert better.better_than(narrow)
    assert not narrow.better_than(better)


def test_an_unknown_silhouette_is_no_better_than_any() -> None:
    labels = np.zeros(3, dtype=np.int64)
    known, unknown = LocalClusters(labels, (-0.9,)), LocalClusters(labels, ())
    assert known.better_than(unknown)
    assert not unknown.better_than(known)
    assert not unknown.better_than(unknown)


def test_thousands_of_equal_crops_are_one_local_cluster() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), [60, 5, 5], axis=0)
    found = local_clusters(rows, settings("count", 3), max_pairs=20)
    assert "connect" in found.notes[0]
    assert found.silhouette == WORST
    assert len(np.unique(found.labels[:60])) == 1
    assert found.count == 3


@pytest.mark.parametrize(
    ("crops", "given", "words"),
    [(4, settings(), "intra_k2=4"), (9, settings(), "fewer than 2"), (10, settings(), None),
     (600, settings("count", 600), "600 local clusters"), (601, settings("count", 600), None),
     (5, settings("distance", 0.5), None)],
)  # fmt: skip
def test_too_few(crops: int, given: CalrSettings, words: str | None) -> None:
    reason = too_few(crops, given)
    assert (reason is None) if words is None else (reason is not None and words in reason)


@pytest.mark.parametrize(
    ("crops", "ratio", "count"), [(35, 0.2, 7), (100, 0.29, 29), (64, 0.2, 12)]
)
def test_a_ratio_is_rounded_down(crops: int, ratio: float, count: int) -> None:
    random = np.random.default_rng(1)
    rows = random.standard_normal((crops, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert local_clusters(rows, settings("ratio", ratio)).count == count


@pytest.mark.parametrize(
    ("mode", "value"),
    [("count", 0.2), ("count", 2.5), ("ratio", 1.0), ("distance", 3), ("ratio", 0)],
)
def test_values_that_do_not_fit_their_mode(mode: str, value: float) -> None:
    with pytest.raises(ValidationError):
        settings(mode, value)
