"""The memory of camera-aware proxies: CAP (Wang et al., AAAI 2021).

Proxies v_a and the contrast l are those of ``adapt.memory.proxies``. For crop i with proxy a(i),
cluster y and camera c:

Intra-camera  L_i = -log( exp(s_a(i)) / sum over the proxies b of camera c of exp(s_b) )
Inter-camera  I_i = l, its positives all proxies of y (the crop's own too), its negatives those of
              the other clusters
Loss          L   = sum over the cameras of the batch of
                    mean over the crops i of that camera of (w_intra L_i + w_inter I_i)
Update        v_a(i) <- normalise(m v_a(i) + (1 - m) f_i) for every sample, in order

The gradient does not flow into the memory; the update follows it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adapt.memory.ordered import update_in_order
from adapt.memory.proxies import CameraProxies, proxy_contrast, proxy_vectors

__all__ = ["CameraProxyMemory"]


class CameraProxyMemory:
    """Proxies of one epoch.

    Args:
        features: (N, D) unit vectors.
        proxies: Of the same N crops.
        temperature: tau.
        momentum: m, the weight of the old value.
        hardest: Proxies of other clusters that the inter-camera loss contrasts with.
    """

    def __init__(
        self,
        features: Tensor,
        proxies: CameraProxies,
        *,
        temperature: float,
        momentum: float,
        hardest: int,
    ) -> None:
        device = features.device
        self._slots = torch.from_numpy(proxies.slots).to(device)
        self._clusters = torch.from_numpy(proxies.clusters).to(device)
        self._cameras = torch.from_numpy(proxies.cameras).to(device)
        self.vectors = proxy_vectors(features, self._slots, len(proxies))
        self._temperature = temperature
        self._momentum = momentum
        self._hardest = hardest

    def loss(
        self, features: Tensor, rows: Tensor, *, intra_weight: float, inter_weight: float
    ) -> Tensor:
        """L of unit ``features`` (B, D) of the crops ``rows`` (B,), each in a cluster; scalar."""
        slots = self._slots[rows]
        cameras = self._cameras[slots]
        scores = features @ self.vectors.t() / self._temperature
        losses = scores.new_zeros(len(rows))
        if intra_weight:
            foreign = self._cameras != cameras[:, None]
            within = scores.masked_fill(foreign, -torch.inf).logsumexp(dim=1)
            own = scores.gather(1, slots[:, None])[:, 0]
            losses = losses + intra_weight * (within - own)
        if inter_weight:
            same = self._clusters == self._clusters[slots][:, None]
            losses = losses + inter_weight * proxy_contrast(
                scores, same, ~same, hardest=self._hardest
            )
        shares = (cameras == cameras[:, None]).sum(dim=1)
        return (losses / shares).sum()

    def logits(self, features: Tensor) -> Tensor:
        """Mean of s_a over the proxies of each cluster, for unit ``features`` (B, D); (B, C)."""
        count = int(self._clusters.max()) + 1
        sums = self.vectors.new_zeros((count, self.vectors.shape[1]))
        sums.index_add_(0, self._clusters, self.vectors)
        sizes = torch.bincount(self._clusters, minlength=count)
        return features @ (sums / sizes[:, None]).t() / self._temperature

    @torch.no_grad()
    def update(self, features: Tensor, rows: Tensor) -> None:
        """Moves the proxies of ``rows`` (B,) by unit ``features`` (B, D), in order."""
        update_in_order(self.vectors, self._slots[rows], features, momentum=self._momentum)
