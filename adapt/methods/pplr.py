"""PPLR (Cho et al., CVPR 2022): pseudo-labels refined by the parts and the whole of one another.

Each epoch: features of all crops, the whole's and those of P horizontal stripes -> k-reciprocal
Jaccard on the whole -> DBSCAN -> cross-agreement C of part and whole (``adapt.methods.agreement``)
-> classifiers of the whole and of each part, their rows the clusters' normalised centroids in that
space -> batches of clusters x crops. With q_g, q_p the classifiers' softmax:

    L     = L_g + L_tri + mean over p of L_p + lambda (L_cam(g) + mean over p of L_cam(p))
    L_g   = PGLR, L_p = AALS                                     (``adapt.methods.refinement``);
            L_p before ``aals_epoch``: cross-entropy with label smoothing .1
    L_tri = soft triplet, on the whole before normalisation      (``adapt.methods.triplet``)
    L_cam = contrast with camera proxies, tau .07                (``adapt.memory.static_proxies``)

Features are neck outputs: the classifiers take them as they are, so that their length sharpens the
softmax, and L_cam normalised. Only the encoder is exported: classifiers and part necks are the
method's, not the encoder's.

Intended deviations: classifiers have as many rows as the epoch has clusters (3000 at most in the
released code) and start each epoch with fresh Adam moments, since a cluster's number, and so its
row, means another cluster the epoch after (the part necks keep theirs); ``k2`` is a setting (there
always 6); L_cam is part of the one method and is left out, with a warning, without cameras or
with one; the last epoch's encoder is kept; camera ids are used by the sampler only when the run
may use them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adapt.clustering.constraints import Constraints
from adapt.memory.cluster import centroids
from adapt.memory.proxies import CameraProxies
from adapt.memory.static_proxies import StaticProxies
from adapt.methods.agreement import cross_agreement
from adapt.methods.clustering_method import ClusteringMethod
from adapt.methods.grouping import group, repetition, require_contrast
from adapt.methods.method import Batch, EpochLabels, Features, MethodState, StateValue
from adapt.methods.part_heads import PartHeads, stripes
from adapt.methods.refinement import agreement_smoothing, guided_refinement
from adapt.methods.triplet import soft_triplet
from adapt.training.config import RunConfig
from adapt.training.distributed import current

__all__ = ["Pplr"]


class Pplr(ClusteringMethod):
    """The method ``pplr``."""

    name = "pplr"

    def __init__(
        self,
        config: RunConfig,
        cameras: NDArray[np.int32] | None,
        device: torch.device,
        constraints: Constraints | None = None,
    ) -> None:
        super().__init__(config, cameras, device, constraints)
        self._settings = config.pplr
        self._heads: PartHeads | None = None
        self._agreement: Tensor | None = None
        self._proxies: StaticProxies | None = None
        self._map_rows: int | None = None

    @property
    def heads(self) -> PartHeads | None:
        """Necks of the parts and classifiers; None before the first features."""
        return self._heads

    @property
    def has_parts(self) -> bool:
        """Unless ``pplr.parts`` is 0."""
        return self._settings.parts > 0

    def pool(self, maps: Tensor) -> Tensor:
        """Means (B, P, C) of the stripes of ``maps`` (B, C, H, W)."""
        return stripes(maps, self._settings.parts)

    def parts(self, maps: Tensor) -> Tensor:
        """Neck outputs (B, P, C) of the stripes of ``maps`` (B, C, H, W)."""
        self._map_rows = maps.shape[2]
        return self._heads_for(maps.shape[1]).embed(self.pool(maps))

    def wants_features(self, epoch: int) -> bool:  # noqa: ARG002
        """Every epoch."""
        return True

    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:
        """Clusters the crops, compares parts with wholes and renews classifiers and proxies."""
        if features is None or (self.has_parts and features.parts is None):
            raise ValueError("pplr extracts features and parts every epoch")
        config = self._config
        found = group(features.vectors, config, self._cameras, constraints=self._constraints)
        classes = found.labels.astype(np.int64)
        require_contrast(found.clusters, len(classes), epoch, config)
        notes = [*found.notes, *self._notes(epoch), *repetition(found.clusters, config)]
        extra: dict[str, float] = dict(found.figures)
        if features.parts is not None:
            agreement = self._compare(features.vectors, features.parts)
            self._agreement = agreement.to(self._device)
            extra["cross_agreement"] = float(agreement.mean())
        spaces = self._spaces(features)
        labels = torch.from_numpy(classes).to(self._device)
        channels = 0 if features.parts is None else features.parts.shape[2]
        self._heads_for(channels).set_rows(
            [
                functional.normalize(centroids(space, labels, found.clusters), dim=1)
                for space in spaces
            ]
        )
        self._proxies = None
        if self._cameras is not None and self._contrasts_cameras:
            proxies = CameraProxies.find(classes, self._cameras)
            extra["shared_clusters"] = float(proxies.shared)
            if proxies.shared:
                self._proxies = StaticProxies(
                    spaces,
                    proxies,
                    self._cameras,
                    temperature=config.temperature,
                    hardest=self._settings.hard_negatives,
                )
            else:
                notes.append("no cluster spans two cameras: no camera loss this epoch")
        return EpochLabels.counted(
            classes, found.clusters, seconds=found.seconds, notes=notes, extra=extra
        )

    def loss(self, batch: Batch) -> Tensor:
        """L."""
        settings = self._settings
        heads = self._ready()
        logits = self.logits(batch)
        parts = part_logits = None
        if self.has_parts:
            if batch.pooled is None:
                raise ValueError("pplr needs the stripes of the backbone's maps")
            parts = heads.embed(batch.pooled)
            part_logits = torch.stack(
                [
                    heads.score(parts[:, part], part + 1, scale=settings.logit_scale)
                    for part in range(settings.parts)
                ],
                dim=1,
            )
        loss = self._whole_loss(logits, part_logits, batch)
        if part_logits is not None:
            loss = loss + self._part_loss(part_logits, batch)
        if settings.triplet:
            loss = loss + soft_triplet(batch.raw, batch.classes)
        if self._proxies is not None:
            loss = loss + settings.lambda_camera * self._camera_loss(self._proxies, parts, batch)
        return loss

    def logits(self, batch: Batch) -> Tensor:
        """Scores of the whole's classifier, which has no temperature."""
        return self._ready().score(batch.raw, 0, scale=self._settings.logit_scale)

    def update(self, batch: Batch) -> None:
        """Nothing: classifiers are trained, proxies are static."""

    def state_dict(self) -> dict[str, StateValue]:
        """Shapes of the heads; all else is made anew each epoch."""
        if self._heads is None or not len(self._heads.rows):
            return {"clusters": None, "dimension": None, "channels": None}
        clusters, dimension = self._heads.rows[0].shape
        return {"clusters": clusters, "dimension": dimension, "channels": self._heads.channels}

    def load_state_dict(self, state: MethodState) -> None:
        """Builds heads of those shapes."""
        clusters, dimension, channels = (
            state[name] for name in ("clusters", "dimension", "channels")
        )
        if clusters is None or dimension is None or channels is None:
            return
        widths = [int(dimension)] + [int(channels)] * self._settings.parts
        self._heads_for(int(channels)).set_rows(
            [torch.zeros(int(clusters), width, device=self._device) for width in widths]
        )

    @property
    def _contrasts_cameras(self) -> bool:
        if self._cameras is None or not self._settings.lambda_camera:
            return False
        return len(np.unique(self._cameras)) > 1

    def _notes(self, epoch: int) -> list[str]:
        """What holds for the whole run, once."""
        if epoch:
            return []
        notes = []
        if self._settings.lambda_camera and not self._contrasts_cameras:
            without = "without cameras" if self._cameras is None else "with one camera"
            notes.append(f"pplr {without}: the camera-proxy losses are left out")
        if self._map_rows is not None and self._map_rows < self._settings.parts:
            notes.append(
                f"the backbone's maps have {self._map_rows} rows for {self._settings.parts} parts:"
                " stripes repeat; a higher input or fewer pplr.parts would tell them apart"
            )
        return notes

    def _compare(self, vectors: NDArray[np.float32], parts: NDArray[np.float32]) -> Tensor:
        """C (N, P); of several ranks the first does it for all."""
        neighbours, threads = self._settings.agreement_neighbours, self._config.threads or None

        def compare() -> Tensor:
            return torch.from_numpy(cross_agreement(vectors, parts, neighbours, threads=threads))

        return current().once(compare)

    def _heads_for(self, channels: int) -> PartHeads:
        if self._heads is None:
            # Extraction, which comes first, runs in inference mode, whose tensors cannot train.
            with torch.inference_mode(mode=False):
                self._heads = PartHeads(
                    self._settings.parts,
                    channels,
                    bn_group=self._config.bn_group,
                    device=self._device,
                ).eval()
        return self._heads

    def _spaces(self, features: Features) -> list[Tensor]:
        """Unit features of the whole and of each part."""
        arrays = [features.vectors]
        if features.parts is not None:
            arrays += [
                np.ascontiguousarray(features.parts[:, part])
                for part in range(features.parts.shape[1])
            ]
        return [torch.from_numpy(array).to(self._device) for array in arrays]

    def _whole_loss(self, logits: Tensor, part_logits: Tensor | None, batch: Batch) -> Tensor:
        if part_logits is None or self._agreement is None or not self._settings.pglr:
            return functional.cross_entropy(logits, batch.classes)
        return guided_refinement(
            logits,
            part_logits,
            batch.classes,
            self._agreement[batch.rows],
            beta=self._settings.beta,
        )

    def _part_loss(self, part_logits: Tensor, batch: Batch) -> Tensor:
        settings = self._settings
        if settings.aals and batch.epoch >= settings.aals_epoch and self._agreement is not None:
            return agreement_smoothing(part_logits, batch.classes, self._agreement[batch.rows])
        return functional.cross_entropy(
            part_logits.flatten(0, 1),
            batch.classes.repeat_interleave(settings.parts),
            label_smoothing=settings.smoothing,
        )

    def _camera_loss(self, proxies: StaticProxies, parts: Tensor | None, batch: Batch) -> Tensor:
        loss = proxies.loss(batch.features, batch.rows, batch.classes, space=0)
        if parts is None:
            return loss
        unit = functional.normalize(parts, dim=2)
        each = [
            proxies.loss(unit[:, part], batch.rows, batch.classes, space=part + 1)
            for part in range(parts.shape[1])
        ]
        return loss + torch.stack(each).mean()

    def _ready(self) -> PartHeads:
        if self._heads is None or not len(self._heads.rows):
            raise ValueError("prepare_epoch comes first")
        return self._heads
