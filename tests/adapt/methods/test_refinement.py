"""AALS and PGLR against their equations, crop by crop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adapt.methods.refinement import agreement_smoothing, guided_refinement

B, P, K = 5, 3, 7


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(logits: Tensor) -> list[float]:
    total = sum(math.exp(v) for v in logits.tolist())
    return [math.exp(v) / total for v in logits.tolist()]


CLASSES = torch.tensor([0, 6, 3, 3, 1])
AGREEMENT = torch.rand((B, P), generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_agreement_smoothing_is_the_literal_loop() -> None:
    logits = random(B, P, K, seed=0) * 3
    total = 0.0
    for part in range(P):
        for i in range(B):
            q, c = softmax(logits[i, part]), float(AGREEMENT[i, part])
            entropy = -math.log(q[int(CLASSES[i])])
            divergence = sum((1 / K) * math.log((1 / K) / value) for value in q)
            total += (c * entropy + (1 - c) * divergence) / (B * P)
    found = agreement_smoothing(logits, CLASSES, AGREEMENT)
    assert float(found) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize(
    ("agreement", "target"),
    [(1.0, torch.eye(K)[2]), (0.0, torch.full((K,), 1 / K))],
)
def test_agreement_smoothing_pulls_to_the_label_or_to_the_uniform(
    agreement: float, target: Tensor
) -> None:
    logits = torch.zeros(1, 1, K, requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=5.0)
    for _ in range(400):
        optimiser.zero_grad()
        loss = agreement_smoothing(
            logits + torch.arange(K) * 0.1, torch.tensor([2]), torch.tensor([[agreement]])
        )
        torch.autograd.backward(loss)
        optimiser.step()
    reached = (logits + torch.arange(K) * 0.1).softmax(dim=2)[0, 0].detach()
    torch.testing.assert_close(reached, target, atol=5e-3, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_guided_refinement_is_the_literal_loop(beta: float) -> None:
    logits, part_logits = random(B, K, seed=1) * 3, random(B, P, K, seed=2) * 3
    total = 0.0
    for i in range(B):
        weights = softmax(AGREEMENT[i])
        whole = softmax(logits[i])
        parts = [softmax(part_logits[i, part]) for part in range(P)]
        for k in range(K):
            ensemble = sum(weights[part] * parts[part][k] for part in range(P))
            target = beta * (k == int(CLASSES[i])) + (1 - beta) * ensemble
            total -= target * math.log(whole[k]) / B
    found = guided_refinement(logits, part_logits, CLASSES, AGREEMENT, beta=beta)
    assert float(found) == pytest.approx(total, rel=1e-10)


def test_the_refined_label_carries_no_gradient_to_the_parts() -> None:
    logits = random(B, K, seed=1).requires_grad_()
    part_logits = random(B, P, K, seed=2).requires_grad_()
    loss = guided_refinement(logits, part_logits, CLASSES, AGREEMENT, beta=0.5)
    torch.autograd.backward(loss)
    assert part_logits.grad is None
    assert logits.grad is not None
