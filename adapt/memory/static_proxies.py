"""Camera proxies that stay as they are within an epoch: PPLR (Cho et al., CVPR 2022).

For crop i of cluster y in camera c, in one space of features, with proxies v_a and the contrast l
of ``adapt.memory.proxies``:

    L_cam = (1 / B) sum over the batch of l_i
    P_i   = proxies of y in cameras other than c,   Q_i = the hardest of the other clusters

A crop whose cluster no other camera saw adds 0 and still counts in B, as published.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.memory.proxies import CameraProxies, proxy_contrast, proxy_vectors

__all__ = ["StaticProxies"]


class StaticProxies:
    """Proxies of one epoch in several spaces.

    Args:
        spaces: (N, D_s) unit features of all crops in each space.
        proxies: Of the same crops.
        cameras: (N,) camera of each crop.
        temperature: tau.
        hardest: Proxies of other clusters that a crop is contrasted with.
    """

    def __init__(
        self,
        spaces: Sequence[Tensor],
        proxies: CameraProxies,
        cameras: NDArray[np.integer],
        *,
        temperature: float,
        hardest: int,
    ) -> None:
        device = spaces[0].device
        slots = torch.from_numpy(proxies.slots).to(device)
        self.vectors = [proxy_vectors(space, slots, len(proxies)) for space in spaces]
        self._clusters = torch.from_numpy(proxies.clusters).to(device)
        self._cameras = torch.from_numpy(proxies.cameras).to(device)
        self._own = torch.from_numpy(cameras.astype(np.int64)).to(device)
        self._temperature = temperature
        self._hardest = hardest

    def loss(self, features: Tensor, rows: Tensor, classes: Tensor, *, space: int) -> Tensor:
        """L_cam of unit ``features`` (B, D_s) of the crops ``rows`` (B,); scalar.

        Args:
            classes: (B,) cluster of each.
            space: Index into ``spaces``.
        """
        same = self._clusters == classes[:, None]
        positives = same & (self._cameras != self._own[rows][:, None])
        scores = features @ self.vectors[space].t() / self._temperature
        return proxy_contrast(scores, positives, ~same, hardest=self._hardest).mean()
