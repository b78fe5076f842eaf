"""From a feature map to one vector.

GeM (Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2018,
eq. 3): f_k = (mean over the map of x_k^p)^(1/p), with one learnable p that starts at 3; p = 1 is
the average, p to infinity the maximum.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from resight.errors import InvalidArgument

__all__ = ["AveragePooling", "GeneralisedMeanPooling", "Pooling", "build_pooling"]

Pooling = Literal["avg", "gem"]


class AveragePooling(nn.Module):
    """(B, C, H, W) to (B, C) by the mean."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the mean of each channel."""
        return features.mean(dim=(2, 3))


class GeneralisedMeanPooling(nn.Module):
    """(B, C, H, W) to (B, C) by the generalised mean.

    Args:
        p: Exponent to start from.
        epsilon: Activations are clamped from below by it: the root has no gradient at zero.
    """

    def __init__(self, p: float = 3.0, *, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))
        self.epsilon = epsilon

    def forward(self, features: Tensor) -> Tensor:
        """Return the generalised mean of each channel, in float32 under autocast too."""
        clamped = features.float().clamp(min=self.epsilon)
        return clamped.pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


def build_pooling(name: str) -> nn.Module:
    """Return the pooling called ``name``.

    Raises:
        InvalidArgument: Unknown name.
    """
    if name == "avg":
        return AveragePooling()
    if name == "gem":
        return GeneralisedMeanPooling()
    raise InvalidArgument(f"pooling {name!r} is unknown: use avg or gem", field="pooling")
