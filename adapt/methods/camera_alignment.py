"""Features that do not tell the camera: the adversary of CALR (Li et al. 2024).

A head guesses the camera k from the unit feature f; between them the gradient is reversed (Ganin
and Lempitsky, ICML 2015), so that the head learns to guess and the encoder to prevent it::

    R(f) = f,  dR/df = -1           z = W3 relu(bn(W2 drop(relu(bn(W1 R(f))))))
    paper         L = - ln softmax(z)_k
    as_released   L = - ln softmax(softmax(z))_k

The released head ends in a softmax that the cross-entropy applies once more: its loss stays within
ln(e + C - 1) - 1 and ln(e + C - 1) for C cameras, and its gradient is small.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CameraHead", "camera_loss", "reverse_gradient"]

_HIDDEN = 100


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:  # noqa: ARG004
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return -gradient


def reverse_gradient(inputs: Tensor) -> Tensor:
    """``inputs``, with the gradient that comes back negated."""
    result: Tensor = _Reversal.apply(inputs)
    return result


class CameraHead(nn.Module):
    """Scores of ``cameras`` from features of ``dimension``, which learn to hide them."""

    def __init__(self, dimension: int, cameras: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimension, _HIDDEN), nn.BatchNorm1d(_HIDDEN), nn.ReLU(), nn.Dropout(),
            nn.Linear(_HIDDEN, _HIDDEN), nn.BatchNorm1d(_HIDDEN), nn.ReLU(),
            nn.Linear(_HIDDEN, cameras),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """z (B, cameras) of unit ``features`` (B, D)."""
        result: Tensor = self.layers(reverse_gradient(features))
        return result


def camera_loss(scores: Tensor, cameras: Tensor, kind: Literal["paper", "as_released"]) -> Tensor:
    """L of ``scores`` (B, C) for ``cameras`` (B,) int64; scalar."""
    if kind == "as_released":
        scores = functional.softmax(scores, dim=1)
    return functional.cross_entropy(scores, cameras)
