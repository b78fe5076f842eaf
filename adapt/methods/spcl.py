"""SpCL (Ge et al., NeurIPS 2020): every crop is trained with, outliers as singletons.

Each epoch: the instance memory -> k-reciprocal Jaccard -> DBSCAN at eps - gap, eps and eps + gap
from one graph -> the self-paced criterion (``adapt.methods.self_paced``) -> unified contrast over
clusters and singletons (``adapt.memory.hybrid``).

``features=memory`` is the paper's way: the memory is filled once and then only updated by training.
``features=re-extract`` fills it anew each epoch.

``spcl.draw=clusters`` makes batches of clusters alone; un-clustered crops remain classes to
contrast with. The paper draws from every class.

With a labelled source set (``--source``) it is the paper's domain-adaptive form: each step sees a
batch of either domain, the losses are summed, the memory has a centroid per source identity, and
the encoder normalises the domains apart (``adapt.training.batch_norm``), the target's norms being
those that cluster and are exported. Source centroids come from the initial encoder, whose norms are
the same for both, and from then on only move.

Intended deviations: the last epoch's encoder is
kept; the mathematics' rearrangements that the two modules above name.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adapt.memory.cluster import centroids
from adapt.memory.hybrid import HybridMemory
from adapt.methods.clustering_method import ClusteringMethod
from adapt.methods.grouping import group, tighter
from adapt.methods.method import Batch, EpochLabels, Features, MethodState, StateValue
from adapt.methods.self_paced import select, unify
from adapt.training.config import RunConfig
from resight.errors import FailedPrecondition

__all__ = ["Spcl"]


class Spcl(ClusteringMethod):
    """The method ``spcl``."""

    name = "spcl"
    takes_source = True
    _theta: float | None = None
    _memory: HybridMemory | None = None
    _source: Tensor | None = None

    @property
    def wants_source(self) -> bool:
        """Once."""
        return self._source is None

    def prepare_source(self, features: Features, identities: NDArray[np.int64]) -> None:
        """Makes a unit centroid of each identity."""
        vectors, classes = torch.from_numpy(features.vectors), torch.from_numpy(identities)
        means = centroids(vectors, classes, int(identities.max()) + 1)
        self._source = functional.normalize(means, dim=1).to(self._device)

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
        found = group(
            memory.vectors.cpu().numpy(),
            config,
            self._cameras,
            gap=gap,
            constraints=self._constraints,
        )
        labels = found.labels.astype(np.int64)
        extra: dict[str, float] = {"unfiltered_outliers": float(found.outliers), **found.figures}
        if config.spcl.self_paced:
            tight, loose = (labels if at is None else at for at in (found.tight, found.loose))
            chosen = select(labels, tight, loose, theta=self._theta)
            labels, self._theta = chosen.labels, chosen.theta
            extra["dissolved"] = float(chosen.dissolved)
            if chosen.theta is not None:
                extra["theta"] = chosen.theta
        classes = unify(labels)
        count = int(classes.max()) + 1
        _require_contrast(count, len(classes), epoch, config)
        memory.assign(torch.from_numpy(classes).to(self._device), count)
        made = EpochLabels.counted(
            classes, count, seconds=found.seconds, notes=found.notes, extra=extra
        )
        if not made.clusters:
            alone = "no clusters: every crop is a class of its own this epoch"
            return replace(made, notes=(*made.notes, alone))
        if config.spcl.draw == "clusters":
            return replace(made, draw=np.where(np.bincount(classes)[classes] > 1, classes, -1))
        return made

    def loss(self, batch: Batch) -> Tensor:
        """Unified contrast, of both domains where there are two."""
        loss = self._ready().loss(batch.features, batch.rows)
        if batch.source is not None:
            seen = batch.source
            loss = loss + self._ready().source_loss(seen.features, seen.identities)
        return loss

    def logits(self, batch: Batch) -> Tensor:
        """Similarity to clusters and singletons (then source identities) over the temperature."""
        return self._ready().logits(batch.features)

    def update(self, batch: Batch) -> None:
        """Moves the vectors of the batch."""
        self._ready().update(batch.features, batch.rows)
        if batch.source is not None:
            self._ready().update_source(batch.source.features, batch.source.identities)

    def state_dict(self) -> dict[str, StateValue]:
        """Instance vectors, source centroids and theta."""
        vectors = None if self._memory is None else self._memory.vectors
        return {"vectors": vectors, "theta": self._theta, "source": self._source}

    def load_state_dict(self, state: MethodState) -> None:
        """Takes back what there was; the next epoch regroups it."""
        vectors, theta, source = state["vectors"], state["theta"], state.get("source")
        self._theta = None if theta is None else float(theta)
        if isinstance(source, Tensor):
            self._source = source.to(self._device)
        if isinstance(vectors, Tensor):
            self._fill(vectors.to(self._device))

    def _fill(self, vectors: Tensor) -> None:
        config = self._config
        self._memory = HybridMemory(
            vectors,
            temperature=config.temperature,
            momentum=config.momentum,
            source=self._source,
        )

    def _ready(self) -> HybridMemory:
        if self._memory is None:
            raise ValueError("prepare_epoch with features comes first")
        return self._memory


def _require_contrast(count: int, crops: int, epoch: int, config: RunConfig) -> None:
    if count < 2:
        raise FailedPrecondition(
            f"epoch {epoch + 1}: all {crops} crops form a single cluster, so there is nothing to"
            f" contrast: the crops may all be alike; otherwise {tighter(config)} or start from"
            " another encoder (--init)",
            field="eps",
            reason="ONE_CLUSTER",
        )
