"""Entropy weights against a literal loop; never 0/0."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional

from adapt.methods.camera_entropy import camera_entropy, entropy_weights


@pytest.mark.parametrize("seed", range(5))
def test_entropy_of_cameras(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.r_[np.arange(12), random.integers(-1, 12, 60)].astype(np.int64)
    cameras = random.integers(0, 5, len(labels)).astype(np.int32)
    expected = []
    for cluster in range(12):
        counts = Counter(cameras[labels == cluster].tolist())
        total = sum(counts.values())
        expected.append(-sum(n / total * math.log(n / total) for n in counts.values()))
    entropy = camera_entropy(labels, cameras, 12)
    np.testing.assert_allclose(entropy, expected, atol=1e-12)
    weights = entropy_weights(entropy, 0.01)
    np.testing.assert_allclose(weights, [max(math.log(1 + h), 0.01) for h in expected])


def test_a_cluster_of_one_camera_has_none_and_an_even_one_the_most() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 2])
    cameras = np.array([3, 3, 0, 1, 0, 0, 1], dtype=np.int32)
    entropy = camera_entropy(labels, cameras, 4)
    assert entropy[0] == 0.0
    assert entropy[1] == pytest.approx(math.log(2))
    assert 0 < entropy[2] < entropy[1]
    assert entropy[3] == 0.0


@pytest.mark.parametrize("floor", [1e-6, 1e-3])
def test_a_batch_of_single_camera_clusters_is_a_plain_mean(floor: float) -> None:
    labels = np.array([0, 0, 1, 1])
    weights = entropy_weights(camera_entropy(labels, np.zeros(4, dtype=np.int32), 2), floor)
    scores = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    wanted = torch.from_numpy(labels)
    weighted = functional.cross_entropy(scores, wanted, torch.from_numpy(weights).float())
    torch.testing.assert_close(weighted, functional.cross_entropy(scores, wanted))
