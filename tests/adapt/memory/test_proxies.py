"""Camera proxies and their contrast against their definitions, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapt.memory.proxies import CameraProxies, proxy_contrast, proxy_vectors


def unit(rows: int, dim: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dim, generator=random), dim=1)


def literal(scores: list[float], positives: set[int], negatives: set[int], hardest: int) -> float:
    """One row: the average over the positives of its log share against P and the hardest Q."""
    if not positives:
        return 0.0
    rivals = sorted((scores[b] for b in negatives), reverse=True)[:hardest]
    total = sum(math.exp(s) for s in [scores[a] for a in positives] + rivals)
    return -sum(math.log(math.exp(scores[a]) / total) for a in positives) / len(positives)


def test_a_proxy_is_a_cluster_in_a_camera() -> None:
    random = np.random.default_rng(0)
    classes = random.integers(-1, 6, 80)
    cameras = random.integers(0, 4, 80).astype(np.int32)
    proxies = CameraProxies.find(classes, cameras)
    pairs = {(y, c) for y, c in zip(classes.tolist(), cameras.tolist(), strict=True) if y >= 0}
    listed = list(zip(proxies.clusters.tolist(), proxies.cameras.tolist(), strict=True))
    assert listed == sorted(pairs)
    assert len(proxies) == len(pairs)
    for row, slot in enumerate(proxies.slots.tolist()):
        if classes[row] < 0:
            assert slot == -1
        else:
            assert listed[slot] == (classes[row], cameras[row])
    assert proxies.shared == sum(len({c for y, c in pairs if y == k}) > 1 for k in range(6))


def test_without_cameras_a_proxy_is_a_cluster() -> None:
    classes = np.array([1, -1, 0, 2, 1, 0])
    proxies = CameraProxies.find(classes, None)
    assert proxies.slots.tolist() == classes.tolist()
    assert proxies.clusters.tolist() == [0, 1, 2]
    assert proxies.shared == 0


def test_vectors_are_normalised_means_over_cluster_and_camera() -> None:
    classes = np.array([0, 0, 0, 1, 1, -1, 1])
    cameras = np.array([0, 1, 0, 1, 1, 1, 0], dtype=np.int32)
    proxies = CameraProxies.find(classes, cameras)
    features = unit(7, 5, 0)
    found = proxy_vectors(features, torch.from_numpy(proxies.slots), len(proxies))
    pairs = zip(proxies.clusters.tolist(), proxies.cameras.tolist(), strict=True)
    for vector, (cluster, camera) in zip(found, pairs, strict=True):
        members = [i for i in range(7) if classes[i] == cluster and cameras[i] == camera]
        mean = torch.stack([features[i] for i in members]).mean(dim=0)
        torch.testing.assert_close(vector, mean / mean.norm())


@pytest.mark.parametrize("hardest", [1, 3, 50])
def test_contrast_is_the_literal_loop(hardest: int) -> None:
    generator = torch.Generator().manual_seed(hardest)
    scores = torch.randn(9, 12, generator=generator, dtype=torch.float64) * 4
    positives = torch.rand(9, 12, generator=generator) < 0.2
    positives[0] = False
    negatives = ~positives & (torch.rand(9, 12, generator=generator) < 0.7)
    found = proxy_contrast(scores, positives, negatives, hardest=hardest)
    for row in range(9):
        expected = literal(
            scores[row].tolist(),
            set(positives[row].nonzero()[:, 0].tolist()),
            set(negatives[row].nonzero()[:, 0].tolist()),
            hardest,
        )
        assert float(found[row]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(found[0]) == 0.0


def test_a_row_without_positives_has_no_gradient_and_no_nan() -> None:
    scores = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    positives = torch.tensor([[False] * 5, [True, False, False, False, False]])
    torch.autograd.backward(proxy_contrast(scores, positives, ~positives, hardest=2).sum())
    assert scores.grad is not None
    assert torch.equal(scores.grad[0], torch.zeros(5))
    assert bool(torch.isfinite(scores.grad).all())
    assert int((scores.grad[1] != 0).sum()) == 3
