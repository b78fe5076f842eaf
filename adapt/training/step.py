"""One training step: forward, loss, weights, memory, averaged twin.

Where float16 overflows, the step is left out: weights, memory and twin do not move, and the running
statistics of batch norms, which have seen what overflowed, are put back. Only the scale of the
gradients is another then (``adapt.training.descent``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapt.methods.method import Batch, Method, SourceBatch
from adapt.training.averaging import AveragedTwin
from adapt.training.batch_norm import running_statistics, seeing_both
from adapt.training.config import RunConfig
from adapt.training.descent import Descent
from adapt.training.device import Precision
from adapt.training.distributed import current
from adapt.training.extraction import forward_with_maps
from adapt.training.schedule import learning_rate
from adapt.training.teacher import batch_statistics, soft_target_loss
from adapt.training.views import Views

__all__ = ["TrainingStep"]


class TrainingStep:
    """Trains ``model`` and the heads of ``method`` by one batch a call.

    Args:
        model: On its device, batch norms grouped if they are to be.
        iterations: Steps an epoch.

    Attributes:
        twin: The averaged model, or None.
        skipped: Steps that this process has left out so far.
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
        self.skipped = 0
        self._model = model
        self._method = method
        self._config = config
        self._iterations = iterations
        self._ranks = current()
        self._precision = Precision(config.precision, device)
        self._descent = Descent(model, method, config, self._precision)
        self._forward = _Forward(model, maps=method.has_parts, compiled=config.compile)
        self._teaching: _Forward | None = None
        if self.twin is not None and config.teacher.weight:
            self._teaching = _Forward(self.twin.module, maps=False, compiled=config.compile)

    def __call__(self, views: Views, number: int) -> Tensor:
        """Takes step ``number`` of the run, from 0, or leaves it out; the loss, detached."""
        statistics = list(self._statistics()) if self._precision.scales else []
        before = [value.clone() for value in statistics]
        epoch = number // self._iterations
        batch = self._look(views, epoch)
        loss = self._method.loss(batch)
        if self._teaching is not None:
            loss = self._blend(loss, batch, views, self._teaching)
        moved = self._descent(loss, learning_rate(self._config, number, self._iterations))
        if self._precision.scales and not (moved and bool(batch.features.isfinite().all())):
            for value, kept in zip(statistics, before, strict=True):
                value.copy_(kept)
            self.skipped += 1
            return loss.detach()
        self._method.update(batch.detached())
        if self.twin is not None:
            self.twin.update(self._model, number)
        return loss.detach()

    @property
    def overflows(self) -> bool:
        """As ``Descent.overflows``."""
        return self._descent.overflows

    def adopt_heads(self) -> None:
        """Lets the optimiser train the method's heads as they are now."""
        self._descent.adopt_heads()

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, gradient scaler and twin."""
        ema = None if self.twin is None else self.twin.module.state_dict()
        return {"ema": ema, **self._descent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> tuple[str, ...]:
        """Takes back what ``state_dict`` gave; ``Descent.load_state_dict`` says what it returns."""
        if self.twin is not None:
            self.twin.module.load_state_dict(state["ema"])
        return self._descent.load_state_dict(state)

    def _statistics(self) -> Iterator[Tensor]:
        """Running statistics, the very tensors, of all norms that a step goes through."""
        twin = None if self._teaching is None else self._teaching.model
        for network in (self._model, self._method.heads, twin):
            if network is not None:
                yield from running_statistics(network)

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
            pooled=None if maps is None else self._ranks.gather(self._method.pool(maps)),
        )

    def _blend(self, loss: Tensor, batch: Batch, views: Views, teaching: _Forward) -> Tensor:
        settings = self._config.teacher
        inputs = views.inputs if views.again is None else views.again
        frozen = self._config.freeze_bn
        with torch.no_grad(), nullcontext() if frozen else batch_statistics(teaching):
            seen = self._batch(*self._see(teaching, inputs), views, batch.epoch)
        soft = soft_target_loss(self._method, batch, seen, settings)
        return (1.0 - settings.weight) * loss + settings.weight * soft


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
