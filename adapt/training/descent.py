"""One update of the weights: the gradient over all ranks, scaled where float16 needs it.

In float16 a small gradient is 0 and a large one infinite: the loss is multiplied by a scale S, the
gradients divided by it; where one is not finite the update is left out and S halved
(Micikevicius et al., ICLR 2018; ``torch.amp.GradScaler``). Gradients are the same on every rank, so
all leave out the same updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adapt.methods.method import Method
from adapt.training.config import RunConfig
from adapt.training.device import Precision
from adapt.training.distributed import current

__all__ = ["Descent"]

# The optimiser's second group of parameters; the first is the encoder's.
_HEADS = 1


class Descent:
    """The optimiser of ``model`` and of the heads of ``method``."""

    def __init__(
        self, model: nn.Module, method: Method, config: RunConfig, precision: Precision
    ) -> None:
        self._model = model
        self._method = method
        self._ranks = current()
        self._precision = precision
        self._optimiser = _build_optimiser(model, config)

    def __call__(self, loss: Tensor, rate: float) -> bool:
        """Moves the weights by the gradient of the scalar ``loss``; whether it was finite.

        Always true without a scale, for looking would wait for the GPU.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        scaler = self._precision.scaler
        torch.autograd.backward(scaler.scale(loss))
        self._ranks.sum_gradients(self._model.parameters(), self._head_parameters())
        scale = scaler.get_scale()
        scaler.step(self._optimiser)
        scaler.update()
        return scaler.get_scale() >= scale

    @property
    def overflows(self) -> bool:
        """Whether even gradients that are scaled down are not finite: no scale will help."""
        return self._precision.scaler.get_scale() < 1.0

    def adopt_heads(self) -> None:
        """Trains the method's heads as they are now."""
        wanted = self._head_parameters()
        group = self._optimiser.param_groups[_HEADS]
        for gone in set(group["params"]) - set(wanted):
            self._optimiser.state.pop(gone, None)
        group["params"] = wanted

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and scale, and the precision that the scale is for."""
        return {
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._precision.scaler.state_dict(),
            "precision": self._precision.name,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> tuple[str, ...]:
        """Takes back what ``state_dict`` gave, ``adopt_heads`` having been called.

        Returns:
            What could not be taken back, in words: another device may compute in another precision,
            to which the scale does not belong; it starts anew then.
        """
        self._optimiser.load_state_dict(state["optimiser"])
        before, now = state["precision"], self._precision.name
        if before != now:
            return (
                f"resumed in {now} what was trained in {before}: it ends otherwise than without the"
                " interruption; give the same device, or name the precision",
            )
        self._precision.scaler.load_state_dict(state["scaler"])
        return ()

    def _head_parameters(self) -> list[Tensor]:
        heads = self._method.heads
        return [] if heads is None else [p for p in heads.parameters() if p.requires_grad]


def _build_optimiser(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    groups: list[dict[str, Any]] = [{"params": parameters}, {"params": []}]
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
