"""One unit centroid per cluster: the memory of Cluster Contrast (Dai et al., ACCV 2022).

Start of an epoch   c_y = normalise(mean of f_i over the members of y)
Loss                L = mean over the batch of -log softmax_y(f . c / tau)           (eq. 5)
Update ``mean``     c_y <- normalise(m c_y + (1 - m) f) for every sample, in order
Update ``hard``     the same once a class, with the member least similar to c_y      (eq. 6)

The gradient does not flow into the memory; the update follows it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from adapt.memory.ordered import update_in_order

__all__ = ["ClusterMemory", "centroids"]


def centroids(features: Tensor, classes: Tensor, count: int) -> Tensor:
    """Means of ``features`` (N, D) by class 0..count-1, not normalised; negatives are left out."""
    # A row too many takes what has no class: to pick out the rest would copy the features.
    slots = torch.where(classes < 0, count, classes)
    sums = features.new_zeros((count + 1, features.shape[1]))
    sums.index_add_(0, slots, features)
    sizes = torch.bincount(slots, minlength=count + 1).clamp(min=1)
    return sums.div_(sizes[:, None].to(sums.dtype))[:count]


class ClusterMemory:
    """Centroids of the clusters of one epoch.

    Args:
        features: (N, D) unit vectors.
        classes: (N,) int64 cluster of each, 0..C-1, or negative for none.
        count: C.
    """

    def __init__(
        self,
        features: Tensor,
        classes: Tensor,
        count: int,
        *,
        temperature: float,
        momentum: float,
        update: Literal["mean", "hard"],
    ) -> None:
        self.vectors = functional.normalize(centroids(features, classes, count), dim=1)
        self._temperature = temperature
        self._momentum = momentum
        self._hard = update == "hard"

    def loss(self, features: Tensor, classes: Tensor) -> Tensor:
        """InfoNCE of unit ``features`` (B, D) against all centroids; scalar."""
        return functional.cross_entropy(self.logits(features), classes)

    def logits(self, features: Tensor) -> Tensor:
        """f . c / tau of unit ``features`` (B, D); (B, C)."""
        return features @ self.vectors.t() / self._temperature

    @torch.no_grad()
    def update(self, features: Tensor, classes: Tensor) -> None:
        """Moves the centroids by unit ``features`` (B, D) of ``classes`` (B,), in order."""
        if self._hard:
            features, classes = self._hardest(features, classes)
        update_in_order(self.vectors, classes, features, momentum=self._momentum)

    def _hardest(self, features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        similarity = (features * self.vectors[classes]).sum(dim=1)
        present, inverse = torch.unique(classes, return_inverse=True)
        table = similarity.new_full((len(present), len(classes)), torch.inf)
        table[inverse, torch.arange(len(classes), device=classes.device)] = similarity
        return features[table.argmin(dim=1)], present
