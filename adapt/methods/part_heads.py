"""What PPLR trains beside the encoder: part necks, and a classifier for the whole and each part.

Part p of P is the p-th horizontal stripe of the backbone's maps of H rows: rows floor(p H / P) to
ceil((p + 1) H / P), which is adaptive average pooling. Stripes share rows where P does not divide
H, and repeat them where H < P.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapt.training.batch_norm import group_batch_norms

__all__ = ["PartHeads", "stripes"]


def stripes(maps: Tensor, parts: int) -> Tensor:
    """Means of ``maps`` (B, C, H, W) over ``parts`` horizontal stripes, (B, P, C).

    Sliced, because the gradient of torch's adaptive pooling is not repeatable on a GPU.
    """
    height = maps.shape[2]
    bounds = [(p * height // parts, -(-(p + 1) * height // parts)) for p in range(parts)]
    return torch.stack([maps[:, :, top:bottom].mean(dim=(2, 3)) for top, bottom in bounds], dim=1)


class PartHeads(nn.Module):
    """Necks and classifiers.

    Args:
        parts: P, may be 0.
        channels: C of the backbone's maps.
        bn_group: Images a batch-norm group, as for the encoder.
        device: Where they are trained.

    Attributes:
        parts: P.
        channels: C.
        rows: Classifier weights: (K, D) of the whole, then (K, C) of each part; empty before
            ``set_rows``.
    """

    def __init__(self, parts: int, channels: int, *, bn_group: int, device: torch.device) -> None:
        super().__init__()
        self.parts = parts
        self.channels = channels
        self.necks = nn.ModuleList(_neck(channels) for _ in range(parts))
        self.rows = nn.ParameterList()
        self.to(device)
        group_batch_norms(self, bn_group)

    def set_rows(self, rows: Sequence[Tensor]) -> None:
        """Replaces the classifiers by new ones with these weights: (K, D), then P of (K, C)."""
        self.rows = nn.ParameterList([nn.Parameter(weight.clone()) for weight in rows])

    def embed(self, pooled: Tensor) -> Tensor:
        """Part features (B, P, C), not normalised, of ``pooled`` stripes (B, P, C)."""
        return torch.stack([neck(pooled[:, part]) for part, neck in enumerate(self.necks)], dim=1)

    def score(self, features: Tensor, space: int, *, scale: float) -> Tensor:
        """Logits (B, K) of ``features`` (B, D or C) in ``space`` 0 (the whole) or 1..P.

        Args:
            scale: Of the cosine; 0 = the plain product.
        """
        weight = self.rows[space]
        if not scale:
            return functional.linear(features, weight)
        return scale * functional.linear(
            functional.normalize(features, dim=1), functional.normalize(weight, dim=1)
        )


def _neck(channels: int) -> nn.Module:
    neck = nn.BatchNorm1d(channels)
    neck.bias.requires_grad_(False)
    return neck
