"""One optimiser step: forward, loss, gradient over all ranks, memory, averaged twin."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapt.methods.method import Batch, Method, SourceBatch
from adapt.training.averaging import AveragedTwin
from adapt.training.batch_norm import seeing_both
from adapt.training.config import RunConfig
from adapt.training.device import Precision
from adapt.training.distributed import current
from adapt.training.extraction import forward_with_maps
from adapt.training.schedule import learning_rate
from adapt.training.teacher import batch_statistics, soft_target_loss
from adapt.training.views import Views

__all__ = ["TrainingStep"]

# The optimiser's second group of parameters; the first is the encoder's.
_HEADS = 1


class TrainingStep:
    """Trains ``model`` and the heads of ``method`` by one batch a call.

    Args:
        model: On its device, batch norms grouped if they are to be.
        iterations: Steps an epoch.

    Attributes:
        twin: The averaged model, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        config: RunConfig,
        *,
        device: torch.device,
        iterations: int,
    ) -> None:
        self.twin = AveragedTwin(model, config.twin_decay) if config.twin_decay else None
        self._model = model
        self._method = method
        self._config = config
        self._iterations = iterations
        self._ranks = current()
        self._precision = Precision(config.precision, device)
        self._optimiser = _build_optimiser(model, config)
        self._forward = _Forward(model, maps=method.wants_maps, compiled=config.compile)
        self._teaching: _Forward | None = None
        if self.twin is not None and config.teacher.weight:
            self._teaching = _Forward(
                self.twin.module, maps=method.wants_maps, compiled=config.compile
            )

    def __call__(self, views: Views, number: int) -> Tensor:
        """Takes step ``number`` of the run, from 0; returns the loss, detached."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self._config, number, self._iterations)
        epoch = number // self._iterations
        batch = self._look(views, epoch)
        loss = self._method.loss(batch)
        if self._teaching is not None:
            loss = self._blend(loss, batch, views, self._teaching)
        self._descend(loss)
        self._method.update(batch.detached())
        if self.twin is not None:
            self.twin.update(self._model, number)
        return loss.detach()

    def adopt_heads(self) -> None:
        """Lets the optimiser train the method's heads as they are now."""
        wanted = self._head_parameters()
        group = self._optimiser.param_groups[_HEADS]
        for gone in set(group["params"]) - set(wanted):
            self._optimiser.state.pop(gone, None)
        group["params"] = wanted

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, gradient scaler and twin."""
        return {
            "ema": None if self.twin is None else self.twin.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._precision.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave, ``adopt_heads`` having been called."""
        if self.twin is not None:
            self.twin.module.load_state_dict(state["ema"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._precision.scaler.load_state_dict(state["scaler"])

    def _look(self, views: Views, epoch: int) -> Batch:
        if views.source is None or views.identities is None:
            return self._batch(*self._see(self._forward, views.inputs), views, epoch)
        with seeing_both(self._forward):
            output, maps = self._see(self._forward, torch.cat([views.source, views.inputs]))
        source, target = output.chunk(2)
        features = functional.normalize(self._ranks.gather(source), dim=1)
        batch = self._batch(target, None if maps is None else maps.chunk(2)[1], views, epoch)
        return replace(batch, source=SourceBatch(features, views.identities))

    def _see(self, forward: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """What ``forward`` makes of this rank's ``inputs``."""
        if not self._config.channels_last:
            inputs = inputs.contiguous()
        with self._precision.autocast():
            output, maps = forward(inputs)
        return output.float(), None if maps is None else maps.float()

    def _batch(self, output: Tensor, maps: Tensor | None, views: Views, epoch: int) -> Batch:
        """The target's crops of all ranks."""
        raw = self._ranks.gather(output)
        return Batch(
            features=functional.normalize(raw, dim=1),
            raw=raw,
            rows=views.rows,
            classes=views.classes,
            epoch=epoch,
            maps=None if maps is None else self._ranks.gather(maps),
        )

    def _blend(self, loss: Tensor, batch: Batch, views: Views, teaching: _Forward) -> Tensor:
        settings = self._config.teacher
        inputs = views.inputs if views.again is None else views.again
        frozen = self._config.freeze_bn
        with torch.no_grad(), nullcontext() if frozen else batch_statistics(teaching):
            seen = self._batch(*self._see(teaching, inputs), views, batch.epoch)
        soft = soft_target_loss(self._method, batch, seen, settings)
        return (1.0 - settings.weight) * loss + settings.weight * soft

    def _descend(self, loss: Tensor) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        scaler = self._precision.scaler
        torch.autograd.backward(scaler.scale(loss))
        self._ranks.sum_gradients(self._model.parameters(), self._head_parameters())
        scaler.step(self._optimiser)
        scaler.update()

    def _head_parameters(self) -> list[Tensor]:
        heads = self._method.heads
        return [] if heads is None else [p for p in heads.parameters() if p.requires_grad]


class _Forward(nn.Module):
    """Features (B, D) and, if wanted, maps of a network, compiled if wanted.

    Only training goes this way: its shapes never change, where extraction's last batch is short
    and re-estimation sets another momentum with each batch, each of which would compile anew.
    """

    def __init__(self, model: nn.Module, *, maps: bool, compiled: bool) -> None:
        super().__init__()
        self.model = model
        self._maps = maps
        if compiled:
            self.compile()

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._maps:
            return forward_with_maps(self.model, inputs)
        return self.model(inputs), None


def _build_optimiser(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    groups: list[dict[str, Any]] = [{"params": parameters}, {"params": []}]
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
