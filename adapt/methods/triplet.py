"""The soft triplet loss with batch-hard pairs (Hermans et al., 2017; as MMT and PPLR use it).

    L = mean over anchors a of log(1 + exp(d_ap - d_an))

with Euclidean distances to the farthest crop p of a's class in the batch, a itself where there is
no other, and to the nearest crop n of another class. Equal to -log of the softmax of (d_ap, d_an)
at d_an. Pairs are chosen without gradient and their distances then computed by difference, not by
inner products, whose rounding would leave a gradient at distance 0 (intended deviation).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["soft_triplet"]


def soft_triplet(features: Tensor, classes: Tensor) -> Tensor:
    """L of ``features`` (B, D), not normalised, with ``classes`` (B,); scalar.

    An anchor without a crop of another class has nothing to compare with and adds 0.
    """
    same = classes[:, None] == classes
    with torch.no_grad():
        distances = torch.cdist(features, features)
        far = distances.masked_fill(~same, -torch.inf).argmax(dim=1)
        near = distances.masked_fill(same, torch.inf).argmin(dim=1)
    gap = _distance(features, features[far]) - _distance(features, features[near])
    return torch.where(same.all(dim=1), 0.0, functional.softplus(gap)).mean()


def _distance(first: Tensor, second: Tensor) -> Tensor:
    result: Tensor = torch.linalg.vector_norm(first - second, dim=1)
    return result
