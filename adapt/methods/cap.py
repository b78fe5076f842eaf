"""CAP (Wang et al., AAAI 2021): clusters split by camera into proxies.

Each epoch: features of all crops -> k-reciprocal Jaccard -> DBSCAN -> a proxy per (cluster, camera)
-> batches of P proxies x K crops -> contrast within each camera and, from ``cap.inter_epoch`` on,
across cameras, whose equations and update rule stand in ``adapt.memory.camera``.

Without cameras a proxy is a cluster, and so it is with a single camera: the intra-camera loss is
then Cluster Contrast's, the inter-camera loss contrasts with the hardest clusters.

Intended deviations: a proxy of one crop gives a batch one crop, not K copies of it (the sampler's
rule for every method); an epoch's length follows from all crops, not from the clustered ones; the
warm-up rises with every step from 0, where the released one rises with every epoch from 0.01; the
ReLU after the stem, which the released ResNet-50 lacks, is each backbone's own affair.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adapt.memory.camera import CameraProxyMemory
from adapt.memory.proxies import CameraProxies
from adapt.methods.clustering_method import ClusteringMethod
from adapt.methods.grouping import group, repetition, require_contrast
from adapt.methods.method import Batch, EpochLabels, Features, MethodState, StateValue

__all__ = ["Cap"]


class Cap(ClusteringMethod):
    """The method ``cap``."""

    name = "cap"
    _memory: CameraProxyMemory | None = None

    def wants_features(self, epoch: int) -> bool:  # noqa: ARG002
        """Every epoch."""
        return True

    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:
        """Clusters the crops, splits the clusters by camera and rebuilds the proxies."""
        if features is None:
            raise ValueError("cap extracts features every epoch")
        config = self._config
        found = group(features.vectors, config, self._cameras, constraints=self._constraints)
        classes = found.labels.astype(np.int64)
        require_contrast(found.clusters, len(classes), epoch, config)
        proxies = CameraProxies.find(classes, self._cameras)
        self._memory = CameraProxyMemory(
            torch.from_numpy(features.vectors).to(self._device),
            proxies,
            temperature=config.temperature,
            momentum=config.momentum,
            hardest=config.cap.hard_negatives,
        )
        by_proxy = config.cap.draw == "proxy"
        drawn = len(proxies) if by_proxy else found.clusters
        notes = [*found.notes, *repetition(drawn, config, "proxies" if by_proxy else "clusters")]
        if self._cameras is None and epoch == 0:
            notes.append("cap without cameras: each cluster is one proxy")
        return EpochLabels.counted(
            classes,
            found.clusters,
            seconds=found.seconds,
            notes=notes,
            extra={
                **found.figures,
                "proxies": float(len(proxies)),
                "shared_clusters": float(proxies.shared),
            },
            draw=proxies.slots if by_proxy else None,
        )

    def loss(self, batch: Batch) -> Tensor:
        """Intra-camera and, from its epoch on, inter-camera contrast."""
        settings = self._config.cap
        across = batch.epoch >= settings.inter_epoch
        return self._ready().loss(
            batch.features,
            batch.rows,
            intra_weight=settings.intra_weight,
            inter_weight=settings.inter_weight if across else 0.0,
        )

    def logits(self, batch: Batch) -> Tensor:
        """Mean similarity to the proxies of each cluster over the temperature."""
        return self._ready().logits(batch.features)

    def update(self, batch: Batch) -> None:
        """Moves the proxies."""
        self._ready().update(batch.features, batch.rows)

    def state_dict(self) -> dict[str, StateValue]:
        """The proxies, for the record: the next epoch builds its own."""
        return {"proxies": None if self._memory is None else self._memory.vectors}

    def load_state_dict(self, state: MethodState) -> None:
        """Nothing of one epoch's proxies enters the next."""

    def _ready(self) -> CameraProxyMemory:
        if self._memory is None:
            raise ValueError("prepare_epoch comes first")
        return self._memory
