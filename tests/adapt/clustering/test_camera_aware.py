"""CA-Jaccard against the published procedure written out on dense matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from adapt.clustering import candidates as candidates_module
from adapt.clustering.cluster import cluster
from adapt.clustering.jaccard import camera_jaccard_rows
from adapt.clustering.neighbours import nearest_by_camera
from adapt.clustering.settings import ClusterSettings
from resight.errors import InvalidArgument

SHAPES = [(5, 20, 2, 4), (3, 6, 3, 3), (1, 1, 1, 0), (8, 2, 1, 2)]
NAMES = ["random", "clustered", "duplicates", "copies", "near-copies", "few", "identical", "one"]


def camera_set(kind: str, rows: int) -> np.ndarray:
    rng = np.random.default_rng(rows)
    if kind == "even":
        return rng.integers(0, 3, rows) * 7 - 2
    if kind == "uneven":  # one crop on camera 0, two on camera 1, most on camera 5
        cameras = rng.choice([3, 4, 5], rows, p=[0.1, 0.2, 0.7])
        cameras[rng.permutation(rows)[:3]] = [0, 1, 1][: min(rows, 3)]
        return cameras
    if kind == "each-its-own":
        return np.arange(rows)
    return np.zeros(rows, dtype=np.int64)


def rankings(
    similarity: np.ndarray, cameras: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every row's whole ranking of its camera (itself first) and of the others."""
    same, other = [], []
    for i in range(len(cameras)):
        own = np.flatnonzero(cameras == cameras[i])
        key = np.where(own == i, np.inf, similarity[i, own])
        same.append(own[np.argsort(-key, kind="stable")])
        rest = np.flatnonzero(cameras != cameras[i])
        other.append(rest[np.argsort(-similarity[i, rest], kind="stable")])
    return same, other


def published(
    similarity: np.ndarray, cameras: np.ndarray, shape: tuple[int, int, int, int], convention: str
) -> np.ndarray:
    k1_intra, k1_inter, k2_intra, k2_inter = shape
    same, other = rankings(similarity, cameras)
    inter_columns = k1_inter + 1 if convention == "released" else k1_inter

    def mutual(lists: list[np.ndarray], i: int, columns: int) -> list[int]:
        return [j for j in lists[i][:columns] if i in lists[j][:columns]]

    n = len(cameras)
    v = np.zeros((n, n))
    for i in range(n):
        members = mutual(same, i, k1_intra + 1) + mutual(other, i, inter_columns)
        weights = np.exp(-(2 - 2 * similarity[i, members]))
        v[i, members] = weights / weights.sum()
    return np.stack(
        [v[np.append(same[i][:k2_intra], other[i][:k2_inter])].mean(axis=0) for i in range(n)]
    )


@pytest.mark.parametrize("convention", ["released", "zhong"])
@pytest.mark.parametrize("kind", ["even", "uneven", "each-its-own", "one"])
@pytest.mark.parametrize("name", NAMES)
def test_encodings_and_labels_equal_the_dense_procedure(
    name: str, kind: str, convention: Any, data_set: Callable[[str], np.ndarray], dense: Any
) -> None:
    features = data_set(name)
    rows = len(features)
    cameras = camera_set(kind, rows)
    similarity = dense.similarities(features)
    for shape in SHAPES:
        names = ("k1_intra", "k1_inter", "k2_intra", "k2_inter")
        settings: dict[str, Any] = dict(zip(names, shape, strict=True), convention=convention)
        expected_v = published(similarity, cameras, shape, convention)
        neighbours = nearest_by_camera(features, cameras, same=shape[0] + 1, other=shape[1] + 1)
        found = camera_jaccard_rows(neighbours, threads=2, **settings)
        v = np.zeros((rows, rows))
        v[np.repeat(np.arange(rows), np.diff(found.indptr)), found.indices] = found.values
        np.testing.assert_array_equal(v != 0, expected_v != 0)
        np.testing.assert_allclose(v, expected_v, rtol=1e-10)
        distances = dense.distances(expected_v)
        result = cluster(
            features,
            ClusterSettings(distance="ca-jaccard", eps=0.4, gap=0.3, **settings),
            cameras=cameras,
        )
        for eps in (0.4, 0.6, 0.7):
            model = DBSCAN(eps=eps, min_samples=4, metric="precomputed")
            np.testing.assert_array_equal(result.labels_at(eps), model.fit_predict(distances))


@pytest.mark.parametrize("kind", ["even", "uneven"])
def test_neighbours_by_camera_equal_brute_force_across_blocks(
    kind: str, data_set: Callable[[str], np.ndarray], dense: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "_BLOCK", 70)  # cameras straddle blocks
    for name in ("random", "duplicates", "near-copies"):
        features = data_set(name)
        cameras = camera_set(kind, len(features))
        same, other = rankings(dense.similarities(features), cameras)
        for threads in (1, 3):
            found = nearest_by_camera(features, cameras, same=9, other=14, threads=threads)
            for columns, lists, expected in (
                (9, found.same, same),
                (14, found.other, other),
            ):
                for i, ranked in enumerate(expected):
                    ranked = ranked[:columns]
                    np.testing.assert_array_equal(lists.indices[i, : len(ranked)], ranked)
                    assert (lists.indices[i, len(ranked) :] == -1).all()


def test_it_links_across_cameras_what_the_plain_distance_keeps_apart() -> None:
    # Each camera shifts all of its crops alike, as far as people differ.
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 12)
    cameras = np.tile(np.repeat(np.arange(3), 4), 40)
    styles = rng.standard_normal((3, 32))
    features = rng.standard_normal((40, 32))[people] + styles[cameras]
    features += 0.3 * rng.standard_normal(features.shape)

    def cameras_a_cluster(**settings: Any) -> float:
        labels = cluster(features, ClusterSettings(**settings), cameras=cameras).labels
        return float(
            np.mean([len(set(cameras[labels == label])) for label in range(labels.max() + 1)])
        )

    plain = cameras_a_cluster(k1=12, k2=4, eps=0.5)
    aware = cameras_a_cluster(distance="ca-jaccard", k1_intra=4, k1_inter=8, eps=0.5)
    assert plain < 1.1
    assert aware > 2


def test_cameras_are_needed_and_their_faults_are_named(
    data_set: Callable[[str], np.ndarray],
) -> None:
    features = data_set("clustered")
    aware = ClusterSettings(distance="ca-jaccard")
    with pytest.raises(InvalidArgument, match="needs the camera of every crop") as caught:
        cluster(features, aware)
    assert caught.value.field == "distance"
    with pytest.raises(InvalidArgument, match="one code for each of the 300 rows"):
        cluster(features, aware, cameras=np.zeros(299, dtype=np.int32))
    single = cluster(features, aware, cameras=np.zeros(300, dtype=np.int32))
    assert "single camera" in single.notes[0]
    uneven = np.repeat([0, 1], [5, 295])
    assert (
        "5 crops are of cameras with no more" in cluster(features, aware, cameras=uneven).notes[0]
    )
    assert cluster(features, aware, cameras=np.arange(300) % 3).notes == ()
    assert cluster(features[:0], aware, cameras=np.zeros(0, dtype=np.int32)).labels.size == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("distance", "euclid"), ("k1_intra", 0), ("k1_inter", 0), ("k1_inter", 1001),
        ("k2_intra", 0), ("k2_intra", 7), ("k2_inter", -1), ("k2_inter", 21),
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=setting) as caught:
        ClusterSettings(**{setting: value})
    assert caught.value.field == setting
