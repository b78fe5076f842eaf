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

__all__ = ["hardest_pairs", "pair_distances", "soft_triplet"]


def soft_triplet(features: Tensor, classes: Tensor) -> Tensor:
    """L of ``features`` (B, D), not normalised, with ``classes`` (B,); scalar.

    An anchor without a crop of another class has nothing to compare with and adds 0.
    """
    same = classes[:, None] == classes
    far, near = hardest_pairs(features, same, ~same)
    gap = pair_distances(features, features[far]) - pair_distances(features, features[near])
    return torch.where(same.all(dim=1), 0.0, functional.softplus(gap)).mean()


@torch.no_grad()
def hardest_pairs(features: Tensor, partners: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Each anchor's farthest partner and nearest other in ``features`` (B, D), two of (B,) int64.

    Args:
        partners, others: (B, B) bool, of an anchor in its row; any crop where a row has none.
    """
    distances = torch.cdist(features, features)
    far = distances.masked_fill(~partners, -torch.inf).argmax(dim=1)
    return far, distances.masked_fill(~others, torch.inf).argmin(dim=1)


def pair_distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance (B,) of each row to that of ``second``; no gradient where it is 0."""
    result: Tensor = torch.linalg.vector_norm(first - second, dim=1)
    return result
