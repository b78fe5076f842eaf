"""The radius chosen from the data: its formula on dense matrices, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from adapt.clustering.cluster import cluster
from adapt.clustering.dbscan import dbscan
from adapt.clustering.graph import SparseDistances, StreamedDistances
from adapt.clustering.jaccard import jaccard_graph
from adapt.clustering.neighbours import nearest
from adapt.clustering.radius import RADII
from adapt.clustering.settings import ClusterSettings
from adapt.clustering.similarity import unit_rows
from resight.errors import InvalidArgument


def literal_reach(distances: np.ndarray) -> float:
    """The bound on J, with Otsu's variance between groups taken group by group."""
    values = distances[np.triu_indices(len(distances), 1)].astype(np.float64)
    within = distances[np.triu_indices(len(distances), 1)] <= np.float32(0.9)
    if within.sum() <= len(values) / 2:
        return 0.9
    steps = np.minimum(np.floor(values / 0.01 + 1e-7), 89)
    values = np.where(within, (steps + 0.5) / 100, 1.0)
    between = []
    for step in range(1, 91):
        low = values < step / 100
        share = low.mean()
        apart = values[low].mean() - values[~low].mean() if 0 < share < 1 else 0.0
        between.append(share * (1 - share) * apart**2)
    best = np.flatnonzero(np.isclose(between, max(between), rtol=1e-9, atol=0))
    return float((best[0] + best[-1]) // 2 + 1) / 100


def literal_scores(distances: np.ndarray, min_samples: int) -> np.ndarray:
    """The module's equations on an N x N matrix."""
    upper = np.triu(np.ones(distances.shape, dtype=bool), 1)
    close = upper & (distances <= np.float32(literal_reach(distances)))
    scores = []
    for eps in RADII:
        model = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
        labels = model.fit_predict(distances)
        together = upper & (labels[:, None] == labels) & (labels >= 0)
        linked, unlinked = (together & close).sum(), (together & ~close).sum()
        found = (1 - distances[together & close]).sum() / (1 - distances[close]).sum()
        several = linked and labels.max() > 0
        scores.append(1 / (1 / found + 5 * unlinked / linked) if several else 0.0)
    return np.array(scores)


@pytest.mark.parametrize("min_samples", [2, 4, 7])
@pytest.mark.parametrize("name", ["clustered", "loose", "duplicates", "few"])
def test_scores_and_labels_equal_the_equations(
    name: str, min_samples: int, data_set: Callable[[str], np.ndarray], dense: Any
) -> None:
    features = data_set(name)
    expected = literal_scores(
        distances := dense.distances(dense.encodings(features, 12, 4, "released")), min_samples
    )
    settings = ClusterSettings(k1=12, k2=4, eps="auto", min_samples=min_samples, gap=0.06)
    results = [cluster(features, settings, threads=threads) for threads in (1, 3)]
    for result in results:
        assert result.radius is not None
        if not expected.any():
            assert (result.eps, result.radius.scores.size) == (0.6, 0)
            continue
        np.testing.assert_allclose(result.radius.scores, expected, atol=1e-6)
        assert result.eps == RADII[int(np.argmax(expected))]
        for eps, labels in (
            (result.eps, result.labels),
            (result.eps, result.labels_at(result.eps)),
            (result.eps - 0.06, result.labels_at(result.eps - 0.06)),
            (result.eps + 0.06, result.labels_at(result.eps + 0.06)),
        ):
            model = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
            np.testing.assert_array_equal(labels, model.fit_predict(distances))
        with pytest.raises(InvalidArgument, match="build it wider"):
            result.labels_at(result.eps + 0.07)
    np.testing.assert_array_equal(results[0].labels, results[1].labels)
    np.testing.assert_array_equal(results[0].radius.scores, results[1].radius.scores)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("count", "each", "k1"), [(8, 8, 30), (10, 6, 30), (10, 6, 20), (20, 6, 30)]
)
def test_people_seen_less_often_than_k1_are_told_apart(
    count: int, each: int, k1: int, dense: Any
) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(count), each)
        features = rng.normal(size=(count, 64))[who] + 0.7 * rng.normal(size=(len(who), 64))
        rows = unit_rows(features.astype(np.float32))
        result = cluster(rows, ClusterSettings(k1=k1, eps="auto"))
        distances = dense.distances(dense.encodings(rows, k1, 6, "released"))
        assert result.radius is not None
        assert result.radius.reach == pytest.approx(literal_reach(distances), abs=0.011)
        assert adjusted_rand_score(who, result.labels) > 0.95
        assert "most pairs of crops share neighbours" in result.notes[-1]


@pytest.mark.parametrize("noise", [0.7, 1.3, 2.0])
@pytest.mark.parametrize(("count", "each"), [(8, 8), (2, 12), (3, 40), (30, 3)])
def test_one_cluster_is_never_taken_where_some_radius_gives_more(
    count: int, each: int, noise: float
) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(count), each)
        features = rng.normal(size=(count, 64))[who] + noise * rng.normal(size=(len(who), 64))
        rows = unit_rows(features.astype(np.float32))
        result = cluster(rows, ClusterSettings(eps="auto"))
        graph = jaccard_graph(nearest(rows, 30), features=rows, max_distance=0.9)
        several = any(dbscan(graph, eps=eps, min_samples=4).max() > 0 for eps in RADII)
        if several:
            assert result.clusters > 1
        else:
            assert result.eps == 0.6
            assert "eps could not be chosen (no radius gives" in result.notes[-1]


def people(
    crops: int, count: int, noise: float, dimension: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Crops of people seen from one to dozens of times, and who they are."""
    rng = np.random.default_rng(seed)
    often = rng.geometric(0.15, count)
    who = rng.choice(count, crops, p=often / often.sum())
    features = rng.standard_normal((count, dimension))[who]
    features += noise * rng.uniform(0.6, 1.4, (crops, 1)) * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), who


def pairwise_f(labels: np.ndarray, who: np.ndarray) -> float:
    together = (labels[:, None] == labels) & (labels >= 0)[:, None]
    same = who[:, None] == who
    rows = np.arange(len(who))
    together[rows, rows] = same[rows, rows] = False
    return float(2 * (together & same).sum() / (together.sum() + same.sum()))


def test_it_is_near_the_best_radius_where_no_fixed_one_is() -> None:
    fixed: dict[float, list[float]] = {eps: [] for eps in (0.4, 0.5, 0.6, 0.7)}
    auto = []
    for crops, count, noise, dimension in (
        (1500, 15, 1.8, 128),  # a hundred noisy crops of each person: loose
        (800, 150, 0.4, 10),  # five crops each, strangers close by: tight
        (1500, 100, 0.4, 10),
        (1200, 60, 1.8, 128),
    ):
        features, who = people(crops, count, noise, dimension, seed=crops)
        result = cluster(features, ClusterSettings(eps="auto"))
        graph = jaccard_graph(nearest(features, 30), features=features, max_distance=0.9)
        worth = {eps: pairwise_f(dbscan(graph, eps=eps, min_samples=4), who) for eps in RADII}
        best = max(worth.values())
        auto.append(pairwise_f(result.labels, who) / best)
        for eps, ratios in fixed.items():
            ratios.append(worth[eps] / best)
    assert min(auto) > 0.8
    assert all(min(ratios) < 0.6 for ratios in fixed.values())


def test_the_choice_says_what_it_was_made_by() -> None:
    features, _ = people(400, 20, 1.0, 64)
    result = cluster(features, ClusterSettings(eps="auto"))
    assert result.radius is not None
    assert result.notes == ()
    assert f"eps {result.eps:.2f} of 0.20 to 0.80" in result.radius.reason
    at = RADII.index(result.eps)
    assert result.figures["eps"] == result.eps
    assert result.figures["eps_score"] == result.radius.scores.max()
    assert result.figures["eps_found"] == result.radius.found[at]
    assert result.radius.clusters[at] == result.clusters
    assert {"radius", "dbscan", "total"} <= set(result.seconds)
    assert cluster(features).figures == {}


def test_no_cluster_at_any_radius_is_said(data_set: Callable[[str], np.ndarray]) -> None:
    for features in (data_set("one"), data_set("none"), np.eye(12, dtype=np.float32)):
        result = cluster(features, ClusterSettings(k1=2, k2=1, eps="auto"))
        assert (result.eps, result.clusters) == (0.6, 0)
        assert "eps could not be chosen (no radius gives a cluster); 0.6" in result.notes[-1]


def test_one_cluster_at_every_radius_is_said() -> None:
    result = cluster(np.ones((40, 4), dtype=np.float32), ClusterSettings(eps="auto"))
    assert (result.eps, result.clusters) == (0.6, 1)
    assert "(no radius gives more than one cluster); 0.6 is" in result.notes[-1]


def test_the_edge_of_the_grid_is_said() -> None:
    copies = np.repeat(np.eye(10, dtype=np.float32), 6, axis=0)
    result = cluster(copies, ClusterSettings(k1=6, k2=2, eps="auto"))
    assert (result.eps, result.clusters, result.outliers) == (0.2, 10, 0)
    assert "0.20 is the smallest that was tried" in result.notes[-1]


def test_more_pairs_than_can_be_held_are_said() -> None:
    features = np.ones((3500, 4), dtype=np.float32)
    result = cluster(features, ClusterSettings(eps="auto"))
    assert isinstance(result.graph, StreamedDistances)
    assert result.eps == 0.6
    assert (result.labels == 0).all()
    assert "more pairs are close than can be held" in result.notes[-1]


def test_a_graph_cut_to_a_radius_holds_the_pairs_of_one_built_for_it(
    data_set: Callable[[str], np.ndarray],
) -> None:
    features = data_set("clustered")
    neighbours = nearest(features, 30)
    wide = jaccard_graph(neighbours, features=features, max_distance=0.9)
    narrow = jaccard_graph(neighbours, features=features, max_distance=0.5)
    assert isinstance(wide, SparseDistances)
    assert isinstance(narrow, SparseDistances)
    cut = wide.within(0.5)
    assert cut.indices.size < wide.indices.size
    for name in ("indptr", "indices", "distances", "max_distance"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(narrow, name))


def test_settings_that_cannot_go_with_it_are_refused() -> None:
    ClusterSettings(eps="auto", gap=0.19)
    with pytest.raises(InvalidArgument, match="gap"):
        ClusterSettings(eps="auto", gap=0.2)
