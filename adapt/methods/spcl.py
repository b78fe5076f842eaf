"""SpCL, unsupervised (Ge et al., NeurIPS 2020): every crop is trained with, outliers as singletons.

Each epoch: the instance memory -> k-reciprocal Jaccard -> DBSCAN at eps - gap, eps and eps + gap
from one graph -> the self-paced criterion (``adapt.methods.self_paced``) -> unified contrast over
clusters and singletons (``adapt.memory.hybrid``).

``features=memory`` is the paper's way: the memory is filled once and then only updated by training.
``features=re-extract`` fills it anew each epoch. Intended deviations: the last epoch's encoder is
kept; the mathematics' rearrangements that the two modules above name.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.memory.hybrid import HybridMemory
from adapt.methods.grouping import group
from adapt.methods.method import Batch, EpochLabels, Features, Method, MethodState, StateValue
from adapt.methods.self_paced import select, unify
from adapt.training.config import RunConfig
from resight.errors import FailedPrecondition

__all__ = ["Spcl"]


class Spcl(Method):
    """The method ``spcl``."""

    name = "spcl"

    def __init__(
        self, config: RunConfig, cameras: NDArray[np.int32] | None, device: torch.device
    ) -> None:
        self._config = config
        self._cameras = cameras
        self._device = device
        self._theta: float | None = None
        self._memory: HybridMemory | None = None

    def wants_features(self, epoch: int) -> bool:  # noqa: ARG002
        """Once, or every epoch with ``features=re-extract``."""
        return self._memory is None or self._config.features == "re-extract"

    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:
        """Clusters the memory, puts unreliable members out, and regroups the memory."""
        if features is not None:
            self._fill(torch.from_numpy(features.vectors).to(self._device))
        memory = self._ready()
        config = self._config
        gap = config.spcl.eps_gap if config.spcl.self_paced else 0.0
        found = group(memory.vectors.cpu().numpy(), config, self._cameras, gap=gap)
        labels = found.labels.astype(np.int64)
        extra: dict[str, float] = {"unfiltered_outliers": float(found.outliers)}
        if config.spcl.self_paced:
            tight, loose = (labels if at is None else at for at in (found.tight, found.loose))
            chosen = select(labels, tight, loose, theta=self._theta)
            labels, self._theta = chosen.labels, chosen.theta
            extra["dissolved"] = float(chosen.dissolved)
            if chosen.theta is not None:
                extra["theta"] = chosen.theta
        classes = unify(labels)
        count = int(classes.max()) + 1
        _require_contrast(count, len(classes), epoch)
        memory.assign(torch.from_numpy(classes).to(self._device), count)
        sizes = np.bincount(classes)
        clusters = int(np.count_nonzero(sizes > 1))
        notes = list(found.notes)
        if not clusters:
            notes.append("no clusters: every crop is a class of its own this epoch")
        return EpochLabels(
            classes=classes,
            count=count,
            clusters=clusters,
            outliers=int(np.count_nonzero(sizes == 1)),
            largest=int(sizes.max()),
            seconds=found.seconds,
            notes=tuple(notes),
            extra=extra,
        )

    def loss(self, batch: Batch) -> Tensor:
        """Unified contrast."""
        return self._ready().loss(batch.features, batch.rows)

    def logits(self, batch: Batch) -> Tensor:
        """Similarity to clusters and singletons over the temperature."""
        return self._ready().logits(batch.features)

    def update(self, batch: Batch) -> None:
        """Moves the vectors of the batch."""
        self._ready().update(batch.features, batch.rows)

    def state_dict(self) -> dict[str, StateValue]:
        """Instance vectors and theta."""
        vectors = None if self._memory is None else self._memory.vectors
        return {"vectors": vectors, "theta": self._theta}

    def load_state_dict(self, state: MethodState) -> None:
        """Takes back vectors and theta; the next epoch regroups them."""
        vectors, theta = state["vectors"], state["theta"]
        self._theta = None if theta is None else float(theta)
        if isinstance(vectors, Tensor):
            self._fill(vectors.to(self._device))

    def _fill(self, vectors: Tensor) -> None:
        config = self._config
        self._memory = HybridMemory(
            vectors.clone(), temperature=config.temperature, momentum=config.momentum
        )

    def _ready(self) -> HybridMemory:
        if self._memory is None:
            raise ValueError("prepare_epoch with features comes first")
        return self._memory


def _require_contrast(count: int, crops: int, epoch: int) -> None:
    if count < 2:
        raise FailedPrecondition(
            f"epoch {epoch + 1}: all {crops} crops form a single cluster, so there is nothing to"
            " contrast: the crops may all be alike; otherwise lower eps or start from another"
            " encoder (--init)",
            field="eps",
            reason="ONE_CLUSTER",
        )
