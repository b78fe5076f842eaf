"""The adversary: signs of gradients, and both losses as their equations say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adapt.methods.camera_alignment import CameraHead, camera_loss, reverse_gradient


def features(count: int = 12, dimension: int = 8) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(count, dimension, generator=random), dim=1)


def test_reversal_keeps_values_and_negates_gradients() -> None:
    inputs = features().requires_grad_()
    outputs = reverse_gradient(inputs)
    assert torch.equal(outputs, inputs)
    gradient = torch.arange(outputs.numel(), dtype=torch.float32).view_as(outputs)
    torch.autograd.backward(outputs, gradient)
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, -gradient)


@pytest.mark.parametrize("kind", ["paper", "as_released"])
def test_a_step_along_the_gradient_helps_the_head_and_harms_the_features(kind: str) -> None:
    torch.manual_seed(3)
    head = CameraHead(8, 3).eval()  # no dropout, fixed statistics: the loss is one function
    cameras = torch.arange(12) % 3
    inputs = features().requires_grad_()
    loss = camera_loss(head(inputs), cameras, kind)  # type: ignore[arg-type]
    torch.autograd.backward(loss)
    assert inputs.grad is not None
    with torch.no_grad():
        moved = camera_loss(head(inputs - 0.05 * inputs.grad), cameras, kind)  # type: ignore[arg-type]
        assert moved > loss
        for parameter in head.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.05 * parameter.grad)
        assert camera_loss(head(inputs), cameras, kind) < loss  # type: ignore[arg-type]


def literal(scores: Tensor, cameras: Tensor, *, twice: bool) -> float:
    total = 0.0
    for row, camera in zip(scores.tolist(), cameras.tolist(), strict=True):
        for _ in range(2 if twice else 1):
            powers = [math.exp(z) for z in row]
            row = [power / sum(powers) for power in powers]
        total -= math.log(row[camera])
    return total / len(scores)


def test_losses_are_their_equations() -> None:
    scores = 3.0 * torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    cameras = torch.arange(10) % 6
    plain, released = (camera_loss(scores, cameras, kind) for kind in ("paper", "as_released"))
    assert float(plain) == pytest.approx(literal(scores, cameras, twice=False), rel=1e-5)
    assert float(released) == pytest.approx(literal(scores, cameras, twice=True), rel=1e-5)


@pytest.mark.parametrize("cameras", [2, 6])
def test_the_released_loss_is_bounded(cameras: int) -> None:
    sure = 50.0 * torch.eye(cameras)
    right = camera_loss(sure, torch.arange(cameras), "as_released")
    wrong = camera_loss(sure, (torch.arange(cameras) + 1) % cameras, "as_released")
    assert float(right) == pytest.approx(math.log(math.e + cameras - 1) - 1)
    assert float(wrong) == pytest.approx(math.log(math.e + cameras - 1))
    if cameras == 6:  # the range that was measured on the released code
        assert (round(float(right), 2), round(float(wrong), 2)) == (1.04, 2.04)


def test_one_camera_aligns_nothing_and_is_finite() -> None:
    inputs = features().requires_grad_()
    loss = camera_loss(CameraHead(8, 1)(inputs), torch.zeros(12, dtype=torch.int64), "paper")
    torch.autograd.backward(loss)
    assert loss.item() == 0.0
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, torch.zeros_like(inputs))
