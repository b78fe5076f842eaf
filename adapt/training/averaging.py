"""An exponential moving average of an encoder: w' <- d w' + (1 - d) w after every step.

Parameters and batch-norm statistics alike (MMT averages parameters only, and its twin then
normalises with statistics of no network: intended deviation).
"""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["AveragedTwin"]


class AveragedTwin:
    """The averaged copy of ``model``, in evaluation mode.

    Early on the decay is min(d, (t + 1) / (t + 10)) at step t, so that the start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the twin towards ``model`` after optimiser step ``step`` (from 0)."""
        share = 1.0 - min(self._decay, (step + 1) / (step + 10))
        source = model.state_dict()
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                value.lerp_(source[name].to(value.dtype), share)
            else:
                value.copy_(source[name])
