"""The training loop that every method shares: extract, label, train, checkpoint, epoch by epoch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adapt.data.augmentation import Augmentation, Normalisation
from adapt.data.cache import CropCache
from adapt.data.loader import load
from adapt.data.sampler import batches
from adapt.methods.method import Batch, EpochLabels, Features, Method
from adapt.report.summary import EpochRecord, RunSummary
from adapt.training import randomness
from adapt.training.averaging import AveragedTwin
from adapt.training.batch_norm import batch_norms
from adapt.training.checkpoint import Identity, load_checkpoint, save_checkpoint
from adapt.training.config import RunConfig
from adapt.training.device import Precision
from adapt.training.extraction import Extractor, forward_with_maps
from adapt.training.schedule import learning_rate
from resight.console import progress
from resight.errors import FailedPrecondition

__all__ = ["Engine", "Workload"]

# Reading a loss waits for the GPU, so it is looked at once in so many steps.
_LOSS_CHECK = 10
# The optimiser's second group of parameters; the first is the encoder's.
_HEADS = 1


@dataclass(frozen=True)
class Workload:
    """What an engine works on.

    Attributes:
        cache: The decoded crops.
        cameras: (N,) codes for the sampler, or None for a camera-free one.
        normalise: uint8 batches to network input.
        extractor: Encoder to features of all crops.
        iterations: Optimiser steps an epoch.
        device: Where the model is.
    """

    cache: CropCache
    cameras: NDArray[np.int32] | None
    normalise: Normalisation
    extractor: Extractor
    iterations: int
    device: torch.device


class Engine:
    """Trains ``model`` with ``method``.

    Args:
        model: On its device, batch norms grouped if they are to be.
        checkpoint: File written after each epoch.
        identity: What a checkpoint must belong to.
        summary: Takes a record of each epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        config: RunConfig,
        work: Workload,
        *,
        checkpoint: Path,
        identity: Identity,
        summary: RunSummary,
    ) -> None:
        self.model = model
        self.summary = summary
        self.completed = 0
        self._method = method
        self._config = config
        self._work = work
        self._checkpoint = checkpoint
        self._identity = identity
        self._precision = Precision(config.precision, work.device)
        self._augment = Augmentation(
            flip=config.flip, pad=config.pad, erasing=config.erasing,
            erasing_fill=config.erasing_fill,
        )  # fmt: skip
        self._optimiser = _build_optimiser(model, config)
        self._twin = AveragedTwin(model, config.ema) if config.ema else None
        self._labels = np.empty(0, dtype=np.int64)

    @property
    def encoder(self) -> nn.Module:
        """The network that features come from: the averaged twin where there is one."""
        return self.model if self._twin is None else self._twin.module

    @property
    def labels(self) -> NDArray[np.int64]:
        """Pseudo-labels (N,) of the last epoch."""
        return self._labels

    def run(self) -> None:
        """Trains the epochs that are left.

        Raises:
            FailedPrecondition: Nothing to contrast, or the loss is not finite; the checkpoint of
                the epoch before is kept.
        """
        for epoch in range(self.completed, self._config.epochs):
            self._epoch(epoch)
            self.completed = epoch + 1
            self._save()

    def resume(self) -> None:
        """Takes up the checkpoint; ``load_checkpoint`` says what it refuses."""
        state = load_checkpoint(self._checkpoint, self._identity)
        self.model.load_state_dict(state["model"])
        if self._twin is not None:
            self._twin.module.load_state_dict(state["ema"])
        self._method.load_state_dict(state["method"])
        self._adopt_heads()
        if self._method.heads is not None:
            self._method.heads.load_state_dict(state["heads"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._precision.scaler.load_state_dict(state["scaler"])
        self._labels = state["labels"].numpy()
        self.summary.restore(state["summary"])
        self.completed = int(state["epoch"])
        randomness.restore(state["random"])

    def _save(self) -> None:
        state: dict[str, Any] = {
            "epoch": self.completed,
            "model": self.model.state_dict(),
            "ema": None if self._twin is None else self._twin.module.state_dict(),
            "heads": None if self._method.heads is None else self._method.heads.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._precision.scaler.state_dict(),
            "method": self._method.state_dict(),
            "labels": torch.from_numpy(self._labels),
            "summary": self.summary.payload(),
            "random": randomness.capture(),
        }
        save_checkpoint(self._checkpoint, self._identity, state)

    def _epoch(self, epoch: int) -> None:
        marks = [time.perf_counter()]
        wanted = self._method.wants_features(epoch)
        features = self._features() if wanted else None
        marks.append(time.perf_counter())
        labels = self._method.prepare_epoch(features, epoch)
        self._adopt_heads()
        self._labels = labels.classes
        marks.append(time.perf_counter())
        for note in labels.notes:
            self.summary.warn(f"epoch {epoch + 1}: {note}")
        loss = self._train(epoch, labels)
        marks.append(time.perf_counter())
        seconds = np.diff(marks).tolist()
        self._record(
            epoch, labels, loss, dict(zip(("extract", "cluster", "train"), seconds, strict=True))
        )

    def _features(self) -> Features:
        heads = self._method.heads
        if heads is not None:
            heads.eval()
        parts = self._method.parts if self._method.has_parts else None
        return self._work.extractor(self.encoder, parts)

    def _adopt_heads(self) -> None:
        """Lets the optimiser train the method's heads as they are now."""
        heads = self._method.heads
        wanted = [] if heads is None else [p for p in heads.parameters() if p.requires_grad]
        group = self._optimiser.param_groups[_HEADS]
        for gone in set(group["params"]) - set(wanted):
            self._optimiser.state.pop(gone, None)
        group["params"] = wanted

    def _record(
        self, epoch: int, labels: EpochLabels, loss: float, seconds: dict[str, float]
    ) -> None:
        count = self._work.iterations
        images = count * self._config.p * self._config.k
        self.summary.epochs.append(
            EpochRecord(
                epoch=epoch + 1,
                clusters=labels.clusters,
                outliers=labels.outliers,
                largest=labels.largest,
                loss=loss,
                lr=learning_rate(self._config, (epoch + 1) * count - 1, count),
                iterations=count,
                images_per_second=images / seconds["train"],
                seconds=seconds,
                cluster_seconds=dict(labels.seconds),
                extra=dict(labels.extra),
            )
        )

    def _train(self, epoch: int, labels: EpochLabels) -> float:
        """One epoch's steps; returns the mean loss."""
        config, work = self._config, self._work
        self.model.train()
        if self._method.heads is not None:
            self._method.heads.train()
        if config.freeze_bn:
            for norm in batch_norms(self.model):
                norm.eval()
        random = randomness.epoch_generator(config.seed, epoch)
        indices = islice(
            batches(
                labels.classes if labels.draw is None else labels.draw,
                work.cameras,
                p=config.p,
                k=config.k,
                seed=config.seed,
                epoch=epoch,
            ),
            work.iterations,
        )
        classes = torch.from_numpy(labels.classes).to(work.device)
        losses: list[Tensor] = []
        title = f"epoch {epoch + 1}/{config.epochs}: {labels.clusters} clusters"
        with progress(title, work.iterations) as bar:
            loaded = load(work.cache, indices, device=work.device, prefetch=config.prefetch)
            for number, (images, chosen) in enumerate(loaded):
                step = epoch * work.iterations + number
                inputs = self._augment(images, work.normalise, random)
                rows = torch.from_numpy(chosen).to(work.device)
                losses.append(self.step(inputs, rows, classes[rows], step))
                if number % _LOSS_CHECK == 0 or number + 1 == work.iterations:
                    _require_finite(losses[-1], epoch, number, self.completed)
                bar.advance(1)
        return float(torch.stack(losses).mean())

    def step(self, inputs: Tensor, rows: Tensor, classes: Tensor, step: int) -> Tensor:
        """One optimiser step on normalised ``inputs`` (B, 3, H, W); returns the loss, detached."""
        config = self._config
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(config, step, self._work.iterations)
        if not config.channels_last:
            inputs = inputs.contiguous()
        maps = None
        with self._precision.autocast():
            if self._method.wants_maps:
                output, maps = forward_with_maps(self.model, inputs)
            else:
                output = self.model(inputs)
        raw = output.float()
        batch = Batch(
            features=functional.normalize(raw, dim=1),
            raw=raw,
            rows=rows,
            classes=classes,
            epoch=step // self._work.iterations,
            maps=None if maps is None else maps.float(),
        )
        loss = self._method.loss(batch)
        self._optimiser.zero_grad(set_to_none=True)
        scaler = self._precision.scaler
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(self._optimiser)
        scaler.update()
        self._method.update(batch.detached())
        if self._twin is not None:
            self._twin.update(self.model, step)
        return loss.detach()


def _build_optimiser(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    groups: list[dict[str, Any]] = [{"params": parameters}, {"params": []}]
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def _require_finite(loss: Tensor, epoch: int, iteration: int, completed: int) -> None:
    if math.isfinite(value := float(loss)):
        return
    kept = f"the checkpoint of epoch {completed} is kept" if completed else "no epoch was completed"
    raise FailedPrecondition(
        f"epoch {epoch + 1}, iteration {iteration + 1}: the loss is {value}; {kept}; lower lr, add"
        " warmup_iterations, or use precision=fp32",
        field="lr",
        reason="LOSS_NOT_FINITE",
    )
