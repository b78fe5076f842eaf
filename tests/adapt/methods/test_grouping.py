"""What a run's settings ask of the clustering."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapt.clustering.cluster import cluster
from adapt.clustering.settings import ClusterSettings
from adapt.methods.grouping import centre_by_camera, group
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
    own = ["k1_intra=3", "k1_inter=9", "k2_intra=1", "k2_inter=2"]
    aware = group(features, config("distance=ca-jaccard", *own), cameras)
    settings = ClusterSettings(
        distance="ca-jaccard", k1=8, k2=3, k1_intra=3, k1_inter=9, k2_intra=1, k2_inter=2
    )
    assert aware.settings == settings
    expected = cluster(features, settings, cameras=cameras)
    np.testing.assert_array_equal(aware.labels, expected.labels)
    assert not np.array_equal(aware.labels, group(features, config(), cameras).labels)


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
    for camera in range(3):
        mean = features[cameras == camera].mean(axis=0)
        expected = features[cameras == camera] - mean
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(centred[cameras == camera], expected, atol=1e-6)
    found = group(features, config("camera_centering=true"), cameras)
    np.testing.assert_array_equal(
        found.labels, cluster(centred, ClusterSettings(k1=8, k2=3)).labels
    )
