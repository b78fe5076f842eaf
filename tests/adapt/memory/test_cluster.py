"""The cluster memory against its equations, written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapt.memory.cluster import ClusterMemory, centroids


def unit(rows: int, dim: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dim, generator=random), dim=1)


CLASSES = torch.tensor([0, 0, 1, -1, 2, 2, 2, 1, -1, 0])


def test_centroids_are_means_over_members() -> None:
    features = unit(10, 6, 0)
    result = centroids(features, CLASSES, 3)
    for label in range(3):
        torch.testing.assert_close(result[label], features[label == CLASSES].mean(dim=0))


def test_loss_is_info_nce_over_unit_centroids() -> None:
    features = unit(10, 6, 0)
    memory = ClusterMemory(features, CLASSES, 3, temperature=0.05, momentum=0.1, update="mean")
    batch, targets = unit(4, 6, 1), torch.tensor([0, 2, 1, 1])
    expected = 0.0
    for feature, target in zip(batch, targets.tolist(), strict=True):
        means = [features[label == CLASSES].mean(dim=0) for label in range(3)]
        scores = [math.exp(float(feature @ (m / m.norm())) / 0.05) for m in means]
        expected -= math.log(scores[target] / sum(scores)) / 4
    assert float(memory.loss(batch, targets)) == pytest.approx(expected, rel=1e-5)


def test_hard_update_takes_the_least_similar_member_once() -> None:
    features = unit(10, 6, 0)
    memory = ClusterMemory(features, CLASSES, 3, temperature=0.05, momentum=0.1, update="hard")
    before = memory.vectors.clone()
    batch, targets = unit(6, 6, 2), torch.tensor([2, 0, 2, 0, 2, 0])
    memory.update(batch, targets)
    for label in (0, 2):
        members = [i for i, t in enumerate(targets.tolist()) if t == label]
        worst = min(members, key=lambda i: float(batch[i] @ before[label]))
        mixed = 0.1 * before[label] + 0.9 * batch[worst]
        torch.testing.assert_close(memory.vectors[label], mixed / mixed.norm())
    assert torch.equal(memory.vectors[1], before[1])


def test_no_gradient_reaches_the_memory() -> None:
    memory = ClusterMemory(
        unit(10, 6, 0), CLASSES, 3, temperature=0.05, momentum=0.1, update="mean"
    )
    batch = unit(3, 6, 1).requires_grad_()
    targets = torch.tensor([0, 1, 2])
    loss = memory.loss(batch, targets)
    memory.update(batch.detach(), targets)
    assert not memory.vectors.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
