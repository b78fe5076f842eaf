"""What a run's settings ask of the clustering."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adapt.clustering.cluster import cluster
from adapt.clustering.constraints import Constraints
from adapt.clustering.settings import ClusterSettings
from adapt.methods.grouping import centre_by_camera, group, require_contrast
from adapt.methods.method import Features
from adapt.methods.registry import create_method
from adapt.training.resolve import resolve
from resight.errors import FailedPrecondition, InvalidArgument


def people(count: int = 30, crops: int = 9, cameras: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Crops of people, each seen by every camera, whose styles shift the features."""
    rng = np.random.default_rng(count)
    codes = np.tile(np.arange(crops) % cameras, count).astype(np.int32)
    features = rng.standard_normal((count, 24))[np.repeat(np.arange(count), crops)]
    features += 0.7 * rng.standard_normal((cameras, 24))[codes]
    features += 0.4 * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), codes


def config(*assignments: str) -> Any:
    return resolve(assignments=["preset=published", "k1=8", "k2=3", "threads=1", *assignments])


def test_every_setting_reaches_the_clustering() -> None:
    features, cameras = people()
    found = group(features, config("eps=0.45", "min_samples=3"), cameras, gap=0.05)
    assert found.settings == ClusterSettings(k1=8, k2=3, eps=0.45, min_samples=3, gap=0.05)
    searched = ["neighbours=approximate", "approximate_above=7", "neighbour_recall=0.6"]
    near = group(features, config(*searched), cameras)
    assert near.settings == ClusterSettings(
        k1=8, k2=3, neighbours="approximate", approximate_above=7, neighbour_recall=0.6
    )
    own = ["k1_intra=3", "k1_inter=9", "k2_intra=1", "k2_inter=2"]
    aware = group(features, config("distance=ca-jaccard", *own), cameras)
    settings = ClusterSettings(
        distance="ca-jaccard", k1=8, k2=3, k1_intra=3, k1_inter=9, k2_intra=1, k2_inter=2
    )
    assert aware.settings == settings
    expected = cluster(features, settings, cameras=cameras)
    np.testing.assert_array_equal(aware.labels, expected.labels)
    assert not np.array_equal(aware.labels, group(features, config(), cameras).labels)


@pytest.mark.parametrize(
    ("clusters", "assignments", "fix"),
    [
        (1, ["eps=0.5"], "otherwise lower eps or"),
        (1, ["eps=auto"], r"otherwise set eps by hand \(eps=0.4\), lower k1 \(8\) or"),
        (1, ["eps=auto", "distance=ca-jaccard"], r"set eps by hand .*, lower k1_inter \(20\) or"),
        (0, ["eps=0.5"], ", raise eps, lower min_samples"),
        (0, ["eps=auto"], r", lower k1 \(8\), set eps by hand above 0.8, lower min_samples"),
    ],
)
def test_errors_name_a_fix_that_exists(clusters: int, assignments: list[str], fix: str) -> None:
    with pytest.raises(FailedPrecondition, match=fix):
        require_contrast(clusters, 60, 0, config(*assignments))


def test_one_class_of_spcl_names_a_fix_that_exists() -> None:
    same = np.full((8, 4), 0.5, dtype=np.float32)
    for eps, fix in (("0.5", "lower eps or"), ("auto", r"set eps by hand .*, lower k1 \(8\) or")):
        run = config("method=spcl", f"eps={eps}")
        method = create_method(run, None, torch.device("cpu"))
        with pytest.raises(FailedPrecondition, match=fix) as caught:
            method.prepare_epoch(Features(same), 0)
        assert caught.value.reason == "ONE_CLUSTER"


def test_ca_jaccard_is_refused_without_cameras() -> None:
    features, _ = people()
    with pytest.raises(FailedPrecondition, match="needs the camera of every crop") as caught:
        group(features, config("distance=ca-jaccard"), None)
    assert caught.value.field == "distance"
    with pytest.raises(InvalidArgument, match="ignore_cameras"):
        config("distance=ca-jaccard", "ignore_cameras=true")
    with pytest.raises(InvalidArgument, match="k2_intra=9 must not exceed"):
        config("k2_intra=9")


def test_centring_takes_the_cameras_means_away() -> None:
    features, cameras = people()
    centred = centre_by_camera(features, cameras)
    np.testing.assert_allclose(np.linalg.norm(centred, axis=1), 1, atol=1e-6)
    cameras[np.flatnonzero(cameras == 0)[:4]] = 3  # of these four, a third of what sets them apart
    centred = centre_by_camera(features, cameras)
    whole = features.astype(np.float64).mean(axis=0)
    for camera, share in enumerate((1, 1, 1, 1 / 3)):
        crops = features[cameras == camera].astype(np.float64)
        assert len(crops) == 4 or len(crops) >= 10
        mean = whole + share * (crops.mean(axis=0) - whole)
        expected = (crops - mean) / np.linalg.norm(crops - mean, axis=1, keepdims=True)
        np.testing.assert_allclose(centred[cameras == camera], expected, atol=1e-6)
    found = group(features, config("camera_centering=true"), cameras)
    np.testing.assert_array_equal(
        found.labels, cluster(centred, ClusterSettings(k1=8, k2=3)).labels
    )


def test_large_cameras_lose_their_whole_mean() -> None:
    features, cameras = people(count=340)  # 1,020 crops a camera
    centred = centre_by_camera(features, cameras)
    for camera in range(3):
        crops = features[cameras == camera]
        plain = crops - crops.mean(axis=0)
        plain /= np.linalg.norm(plain, axis=1, keepdims=True)
        assert (plain * centred[cameras == camera]).sum(axis=1).min() > 0.9999


def test_one_camera_loses_its_mean_however_few_its_crops() -> None:
    features = people()[0][:4]
    plain = features - features.mean(axis=0)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    centred = centre_by_camera(features, np.zeros(4, dtype=np.int32))
    np.testing.assert_allclose(centred, plain, atol=1e-5)


def test_the_two_crops_of_a_camera_that_saw_one_person_stay_alike() -> None:
    features, cameras = people()
    pair = np.array([0, 3])  # two crops of the first person, of one camera
    cameras[pair] = 3
    first, second = centre_by_camera(features, cameras)[pair]
    assert first @ second > 0.5


def test_the_only_crop_of_a_camera_is_centred_as_the_others_are() -> None:
    features, cameras = people()
    cameras[0] = 3
    centred = centre_by_camera(features, cameras)[0]
    expected = features[0] - features.mean(axis=0)
    np.testing.assert_allclose(centred, expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize("method", ["cluster-contrast", "spcl", "pplr", "cap"])
def test_ca_jaccard_without_cameras_is_refused_before_features_are_asked_for(method: str) -> None:
    with pytest.raises(FailedPrecondition, match="needs the camera of every crop"):
        create_method(config("distance=ca-jaccard", f"method={method}"), None, torch.device("cpu"))


def test_eps_auto_serves_all_three_radii_and_the_summary() -> None:
    features, cameras = people()
    found = group(features, config("eps=auto", "method=spcl"), cameras, gap=0.04)
    settings = ClusterSettings(k1=8, k2=3, eps="auto", gap=0.04)
    expected = cluster(features, settings)
    assert found.settings == settings
    assert found.eps == expected.eps
    assert found.figures == expected.figures
    assert found.figures["eps"] == expected.eps
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.tight, expected.labels_at(expected.eps - 0.04))
    np.testing.assert_array_equal(found.loose, expected.labels_at(expected.eps + 0.04))
    assert not np.array_equal(found.tight, found.loose)
    assert group(features, config("eps=0.5"), cameras).eps == 0.5


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["eps=wide"], "give auto, or a number above 0"),
        (["eps=1"], "give auto, or a number above 0"),
        (["eps=.nan"], "give auto, or a number above 0"),
        (["eps=auto", "method=spcl", "spcl.eps_gap=0.2"], r"must be below 0\.2 with eps=auto"),
        (["eps=0.99", "method=spcl"], "must lie between"),
    ],
)
def test_a_radius_that_cannot_work_is_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        config(*assignments)


def tracks_of(cameras: np.ndarray) -> Constraints:
    """Some crops of a camera, two and two, are tracks, whoever they show; times are unknown."""
    tracks = np.full(len(cameras), -1, dtype=np.int32)
    for camera in range(3):
        rows = np.flatnonzero(cameras == camera)[::4][:20]
        tracks[rows] = 100 * camera + np.arange(len(rows)) // 2
    return Constraints(
        tracks=tracks,
        cameras=cameras,
        times=np.full(len(cameras), -1, dtype=np.int64),
        apart=np.zeros((3, 3), dtype=bool),
    )


def test_constraints_bind_all_three_radii() -> None:
    features, cameras = people()
    known = tracks_of(cameras)
    found = group(features, config(), cameras, gap=0.1, constraints=known)
    plain = group(features, config(), cameras, gap=0.1)

    def parted(labels: np.ndarray) -> int:
        tracks = set(known.tracks) - {-1}
        return sum(len(set(labels[known.tracks == track])) > 1 for track in tracks)

    assert parted(plain.labels) > 5
    for labels in (found.labels, found.tight, found.loose):
        assert labels is not None
        assert parted(labels) == 0
    assert found.figures["tracks"] == 30
    assert "tracks" not in plain.figures


@pytest.mark.parametrize("method", ["cluster-contrast", "spcl", "pplr", "cap", "calr"])
def test_every_method_clusters_under_the_constraints(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    class Reached(Exception):
        pass

    def record(*_given: object, **named: object) -> None:
        seen.append(named["constraints"])
        raise Reached

    monkeypatch.setattr(f"adapt.methods.{method.replace('-', '_')}.group", record)
    features, cameras = people()
    known = tracks_of(cameras)
    made = create_method(config(f"method={method}"), cameras, torch.device("cpu"), known)
    with pytest.raises(Reached):
        made.prepare_epoch(Features(features, np.stack([features])), 0)
    assert seen == [known]


def test_tracklet_settings_that_do_nothing_are_refused() -> None:
    assert config("tracklets=separate", "apart_cameras=[[a, b]]").apart_cameras == (("a", "b"),)
    for assignments, message in (
        (["apart_cameras=all"], "no effect without tracklets=separate"),
        (["tracklets=separate", "ignore_cameras=true"], "use link"),
        (["tracklets=link", "method=calr", "calr.clustering=infomap"], "use dbscan"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            config(*assignments)
