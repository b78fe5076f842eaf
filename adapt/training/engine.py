"""The training loop that every method shares: extract, label, train, checkpoint, epoch by epoch."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adapt.methods.method import EpochLabels, Features, Method
from adapt.report.summary import EpochRecord, RunSummary
from adapt.training import randomness
from adapt.training.batch_norm import batch_norms, running_statistics
from adapt.training.checkpoint import Identity, load_checkpoint, save_checkpoint
from adapt.training.config import RunConfig
from adapt.training.distributed import current
from adapt.training.finiteness import first_not_finite
from adapt.training.schedule import learning_rate
from adapt.training.step import TrainingStep
from adapt.training.views import Workload, training_views
from resight.console import progress
from resight.errors import FailedPrecondition

__all__ = ["Engine", "Workload"]

# Reading a loss waits for the GPU, so it is looked at once in so many steps.
_LOSS_CHECK = 10
_OTHER_RANDOMNESS = (
    "resumed on other devices, or with another number of ranks: dropout is drawn otherwise than"
    " without the interruption"
)


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
        self.step = TrainingStep(
            model, method, config, device=work.device, iterations=work.iterations
        )
        self._labels = np.empty(0, dtype=np.int64)

    @property
    def encoder(self) -> nn.Module:
        """The network that features come from: the averaged twin where there is one."""
        return self.model if self.step.twin is None else self.step.twin.module

    @property
    def labels(self) -> NDArray[np.int64]:
        """Pseudo-labels (N,) of the last epoch."""
        return self._labels

    def run(self, should_stop: Callable[[float], bool] | None = None) -> None:
        """Trains the epochs that are left.

        Args:
            should_stop: Told after each epoch how many seconds it took; whether to end with it.

        Raises:
            FailedPrecondition: Nothing to contrast, or the loss is not finite; the checkpoint of
                the epoch before is kept.
        """
        for epoch in range(self.completed, self._config.epochs):
            self._epoch(epoch)
            self.completed = epoch + 1
            self._save()
            if self._is_stopped(should_stop):
                left = self._config.epochs - self.completed
                self.summary.warn(f"stopped after epoch {self.completed}: {left} were left to do")
                return

    def resume(self) -> tuple[str, ...]:
        """Takes up the checkpoint; ``load_checkpoint`` says what it refuses.

        Returns:
            What could not be taken up, in words; the summary has it too.
        """
        state = load_checkpoint(self._checkpoint, self._identity)
        self.model.load_state_dict(state["model"])
        self._method.load_state_dict(state["method"])
        self.step.adopt_heads()
        if self._method.heads is not None:
            self._method.heads.load_state_dict(state["heads"])
        notes = self.step.load_state_dict(state)
        self._labels = state["labels"].numpy()
        self.summary.restore(state["summary"])
        self.completed = int(state["epoch"])
        if not randomness.restore_own(state["random"], self._work.device):
            notes += (_OTHER_RANDOMNESS,)
        for note in notes:
            self.summary.warn(note)
        return notes

    def _is_stopped(self, should_stop: Callable[[float], bool] | None) -> bool:
        if should_stop is None or self.completed == self._config.epochs:
            return False
        seconds = sum(self.summary.epochs[-1].seconds.values())
        # Clocks of two ranks differ: the first one's decides.
        return current().once(lambda: should_stop(seconds))

    def _save(self) -> None:
        state: dict[str, Any] = {
            "epoch": self.completed,
            "model": self.model.state_dict(),
            "heads": None if self._method.heads is None else self._method.heads.state_dict(),
            **self.step.state_dict(),
            "method": self._method.state_dict(),
            "labels": torch.from_numpy(self._labels),
            "summary": self.summary.payload(),
            "random": randomness.capture_every(self._work.device),
        }
        save_checkpoint(self._checkpoint, self._identity, state)

    def _epoch(self, epoch: int) -> None:
        marks = [time.perf_counter()]
        wanted = self._method.wants_features(epoch)
        features = self._features() if wanted else None
        marks.append(time.perf_counter())
        self._prepare_source()
        labels = self._method.prepare_epoch(features, epoch)
        self.step.adopt_heads()
        self._labels = labels.classes
        marks.append(time.perf_counter())
        for note in labels.notes:
            self.summary.warn(f"epoch {epoch + 1}: {note}")
        skipped = self.step.skipped
        loss = self._train(epoch, labels)
        skipped = self.step.skipped - skipped
        self._require_finite_state(epoch)
        marks.append(time.perf_counter())
        seconds = np.diff(marks).tolist()
        spent = dict(zip(("extract", "cluster", "train"), seconds, strict=True))
        self._record(epoch, labels, loss, skipped, spent)

    def _features(self) -> Features:
        heads = self._method.heads
        if heads is not None:
            heads.eval()
        parts = self._method.parts if self._method.has_parts else None
        return self._work.extractor(self.encoder, parts)

    def _prepare_source(self) -> None:
        source, extractor = self._work.source, self._work.source_extractor
        if source is not None and extractor is not None and self._method.wants_source:
            self._method.prepare_source(extractor(self.encoder), source.identities)

    def _record(
        self,
        epoch: int,
        labels: EpochLabels,
        loss: float,
        skipped: int,
        seconds: dict[str, float],
    ) -> None:
        count = self._work.iterations
        extra = dict(labels.extra)
        if skipped:
            extra["skipped_steps"] = float(skipped)
            self.summary.warn(
                f"epoch {epoch + 1}: {skipped} of {count} steps were left out, for float16"
                " overflowed"
            )
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
                extra=extra,
                labels=hashlib.sha256(labels.classes.tobytes()).hexdigest()[:16],
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
        losses: list[Tensor] = []
        left_out: list[Tensor] = []
        title = f"epoch {epoch + 1}/{config.epochs}: {labels.clusters} clusters"
        with progress(title, work.iterations) as bar:
            for number, views in enumerate(training_views(config, work, labels, epoch)):
                skipped = self.step.skipped
                loss = self.step(views, epoch * work.iterations + number)
                if self.step.skipped == skipped:
                    losses.append(loss)
                    if number % _LOSS_CHECK == 0:
                        self._require_finite(loss, epoch, number)
                elif self.step.overflows:
                    raise self._not_finite(
                        f"epoch {epoch + 1}, iteration {number + 1}: float16 overflows", "precision"
                    )
                else:
                    left_out.append(loss)
                bar.advance(1)
        mean = torch.stack(losses or left_out).mean()
        self._require_finite(mean, epoch, work.iterations - 1)
        self._meet()
        return float(mean)

    def _require_finite(self, loss: Tensor, epoch: int, iteration: int) -> None:
        if not math.isfinite(value := float(loss)):
            what = f"epoch {epoch + 1}, iteration {iteration + 1}: the loss is {value}"
            raise self._not_finite(what, "lr")

    def _require_finite_state(self, epoch: int) -> None:
        """Refuses to go on with what must not be written; the loss of a step is of those before."""
        heads, twin = self._method.heads, self.step.twin
        held = {
            "encoder": self.model.state_dict(),
            "twin": {} if twin is None else twin.module.state_dict(),
            "heads": {} if heads is None else heads.state_dict(),
            "memory": self._method.state_dict(),
        }
        if (name := first_not_finite(held)) is not None:
            raise self._not_finite(f"epoch {epoch + 1}: after it {name} is not finite", "lr")

    def _not_finite(self, what: str, field: str) -> FailedPrecondition:
        completed = self.completed
        kept = (
            f"the checkpoint of epoch {completed} is kept"
            if completed
            else "no epoch was completed"
        )
        return FailedPrecondition(
            f"{what}; {kept}; lower lr, add warmup_iterations, or use precision=fp32",
            field=field,
            reason="LOSS_NOT_FINITE",
        )

    def _meet(self) -> None:
        """Gives every rank the mean of the batch-norm statistics that each gathered by itself."""
        networks = [self.model] if self.step.twin is None else [self.model, self.step.twin.module]
        current().average(value for network in networks for value in running_statistics(network))
