"""The soft triplet loss against its equation, anchor by anchor."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adapt.methods.triplet import soft_triplet


def random(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 6, generator=generator, dtype=torch.float64) * 2


@pytest.mark.parametrize("classes", [[0, 0, 1, 1, 2, 2, 0, 1], [0, 0, 0, 1, 2, 3, 3, 3]])
def test_equals_the_literal_loop(classes: list[int]) -> None:
    features = random(8, 0)
    total = 0.0
    for a in range(8):
        distance = [math.dist(features[a].tolist(), features[j].tolist()) for j in range(8)]
        farthest = max(distance[j] for j in range(8) if classes[j] == classes[a])
        closest = min(distance[j] for j in range(8) if classes[j] != classes[a])
        share = math.exp(closest) / (math.exp(farthest) + math.exp(closest))
        total -= math.log(share) / 8
    found = soft_triplet(features, torch.tensor(classes))
    assert float(found) == pytest.approx(total, rel=1e-10)


def test_gradient_is_that_of_the_loss() -> None:
    features = random(6, 1).requires_grad_()
    classes = torch.tensor([0, 0, 1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda x: soft_triplet(x, classes), features)


@pytest.mark.parametrize("classes", [[0] * 4, [0, 1, 2, 3]])
def test_equal_crops_and_single_classes_give_finite_gradients(classes: list[int]) -> None:
    features = random(1, 2).repeat(4, 1).requires_grad_()
    loss = soft_triplet(features, torch.tensor(classes))
    torch.autograd.backward(loss)
    assert features.grad is not None
    assert bool(torch.isfinite(features.grad).all())
    assert float(loss.detach()) == pytest.approx(0.0 if len(set(classes)) == 1 else math.log(2))
