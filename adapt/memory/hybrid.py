"""One vector per crop, contrasted by class: the hybrid memory of SpCL (Ge et al., NeurIPS 2020, 3.1
and 3.2).

Scores   s_ic = (1 / |c|) sum over j in c of f_i . v_j / tau = f_i . w_c / tau,  w_c = mean v_j
Loss     L = -log( exp(s_iy) / sum over clusters and singletons c of exp(s_ic) )
Update   v_i <- normalise(m v_i + (1 - m) f_i), in the order of the batch

A labelled source set adds one centroid u_y per identity, normalise(mean f_i) at first: further
classes c of the sum in both domains' losses, with s_iy = f_i . u_y / tau, and moved as the v_i are.

w_c is a mean of unit vectors and is *not* normalised again, so that a loose cluster has a shorter
centroid. Intended deviations: the sum over members is moved inside the product (equal by
linearity), which needs C and not N products a sample; w_c follows each update by its difference;
log-softmax replaces the 1e-6 guards of the released code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from adapt.memory.cluster import centroids
from adapt.memory.ordered import update_in_order

__all__ = ["HybridMemory"]


class HybridMemory:
    """Instance vectors and the unified classes (clusters and singletons) of the current epoch.

    Args:
        vectors: (N, D) unit vectors; taken over, not copied, and updated in place.
        source: (S, D) unit centroids of labelled identities, likewise; None without.

    ``assign`` comes before all else.
    """

    def __init__(
        self,
        vectors: Tensor,
        *,
        temperature: float,
        momentum: float,
        source: Tensor | None = None,
    ) -> None:
        self.vectors = vectors
        self.source = source
        self._temperature = temperature
        self._momentum = momentum
        nothing = vectors.new_empty(0)
        self._classes, self._sizes, self._centroids = nothing, nothing, nothing

    def assign(self, classes: Tensor, count: int) -> None:
        """Sets the class 0..count-1 of every crop, (N,) int64, for the coming epoch."""
        self._classes = classes
        self._sizes = torch.bincount(classes, minlength=count).clamp(min=1).to(self.vectors.dtype)
        self._centroids = centroids(self.vectors, classes, count)

    def loss(self, features: Tensor, rows: Tensor) -> Tensor:
        """Unified contrast of unit ``features`` (B, D) of the crops ``rows`` (B,); scalar."""
        return functional.cross_entropy(self.logits(features), self._classes[rows])

    def source_loss(self, features: Tensor, identities: Tensor) -> Tensor:
        """Unified contrast of unit ``features`` (B, D) of labelled ``identities`` (B,); scalar."""
        return functional.cross_entropy(self.logits(features), len(self._sizes) + identities)

    def logits(self, features: Tensor) -> Tensor:
        """s_ic of unit ``features`` (B, D); (B, C), or (B, C + S) with the identities last."""
        if not len(self._sizes):
            raise ValueError("assign comes first")
        # The scores are joined and not the centroids, which may be as many as the crops.
        scores = features @ self._centroids.t()
        if self.source is not None:
            scores = torch.cat([scores, features @ self.source.t()], dim=1)
        return scores / self._temperature

    @torch.no_grad()
    def update_source(self, features: Tensor, identities: Tensor) -> None:
        """Moves the centroids of labelled ``identities`` (B,) by unit ``features`` (B, D)."""
        if self.source is None:
            raise ValueError("there is no source set")
        update_in_order(self.source, identities, features, momentum=self._momentum)

    @torch.no_grad()
    def update(self, features: Tensor, rows: Tensor) -> None:
        """Moves the vectors of ``rows`` (B,) by unit ``features`` (B, D), in order."""
        touched = torch.unique(rows)
        before = self.vectors[touched]
        update_in_order(self.vectors, rows, features, momentum=self._momentum)
        classes = self._classes[touched]
        change = (self.vectors[touched] - before) / self._sizes[classes][:, None]
        self._centroids.index_add_(0, classes, change)
