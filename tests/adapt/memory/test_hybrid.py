"""The hybrid memory against SpCL's equations, written out over all N instances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapt.memory.hybrid import HybridMemory


def unit(rows: int, dim: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dim, generator=random), dim=1)


CLASSES = torch.tensor([0, 0, 1, 1, 1, 2, 3, 4])


def literal_loss(vectors: Tensor, batch: Tensor, rows: list[int]) -> float:
    total = 0.0
    for feature, row in zip(batch, rows, strict=True):
        similarity = vectors @ feature / 0.05
        scores = [math.exp(float(similarity[c == CLASSES].mean())) for c in range(5)]
        total -= math.log(scores[int(CLASSES[row])] / sum(scores))
    return total / len(rows)


def test_loss_follows_the_instances_through_updates() -> None:
    vectors = unit(8, 12, 0)
    memory = HybridMemory(vectors.clone(), temperature=0.05, momentum=0.2)
    memory.assign(CLASSES, 5)
    literal = vectors.clone()
    for step in range(6):
        batch, rows = unit(5, 12, 10 + step), [0, 3, 0, 6, 2]
        assert float(memory.loss(batch, torch.tensor(rows))) == pytest.approx(
            literal_loss(literal, batch, rows), rel=1e-4
        )
        memory.update(batch, torch.tensor(rows))
        for feature, row in zip(batch, rows, strict=True):
            mixed = 0.2 * literal[row] + 0.8 * feature
            literal[row] = mixed / mixed.norm()
        torch.testing.assert_close(memory.vectors, literal, rtol=0, atol=1e-6)


def test_gradient_equals_that_of_the_instance_formulation() -> None:
    vectors = unit(8, 12, 0)
    memory = HybridMemory(vectors.clone(), temperature=0.05, momentum=0.2)
    memory.assign(CLASSES, 5)
    rows = torch.tensor([1, 5, 4])
    ours = unit(3, 12, 1).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    memory.loss(ours, rows).backward()
    mask = functional.one_hot(CLASSES).float()
    scores = (theirs @ vectors.t() / 0.05) @ (mask / mask.sum(dim=0))
    functional.cross_entropy(scores, CLASSES[rows]).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
