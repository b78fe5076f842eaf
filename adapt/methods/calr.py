"""Camera-aware label refinement (Li et al., 2024): global clusters refined by local ones.

Stage 1 (``adapt.training.camera_stage``): a model for each camera gives local clusters, once
(``adapt.methods.intra_camera``, ``adapt.methods.local_clusters``).

Stage 2, each epoch: features of all crops -> global clusters -> a pivot for each, and refinement by
its local cluster (``adapt.methods.pivots``) -> a centroid per cluster (``adapt.memory.cluster``) ->
batches of P clusters x K crops ->

    L = sum_i w_y(i) l_i / sum_i w_y(i)  +  lambda L_cam,     l_i = -log softmax_y(f_i . c / tau)

with w from the entropy of a cluster's cameras (``adapt.methods.camera_entropy``) from
``entropy_epoch`` on, 1 before, and L_cam (``adapt.methods.camera_alignment``) in the first
``camera_epochs`` epochs.

Cameras are needed. With a single one stage 1 is the whole set's, refinement compares with it, all
weights are equal and nothing is aligned.

Intended deviations: global clusters are DBSCAN's on exact sparse Jaccard distances unless
``clustering: infomap``; weights have a floor; the last epoch's encoder is kept (the released code
keeps the best by test mAP). The paper's pivot rule, pacing and duration of L_cam could not be read:
what is not a setting here follows the released code.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adapt.clustering.constraints import Constraints
from adapt.clustering.map_equation import infomap_labels, require_infomap
from adapt.clustering.neighbours import Neighbours, nearest
from adapt.methods.camera_alignment import CameraHead, camera_loss
from adapt.methods.camera_entropy import camera_entropy, entropy_weights
from adapt.methods.centroid_contrast import CentroidContrast
from adapt.methods.grouping import centre_by_camera, group, repetition, require_contrast
from adapt.methods.method import Batch, EpochLabels, Features, MethodState, StateValue
from adapt.methods.pivots import drop_probability, misplaced, pivot_scores, pivots
from adapt.training.calr_settings import CalrSettings
from adapt.training.config import RunConfig
from adapt.training.distributed import current
from resight.errors import FailedPrecondition

__all__ = ["Calr"]

# Third word of the seed, beside those of the streams of ``adapt.training.views``.
_PACE_STREAM = 5


class Calr(CentroidContrast):
    """The method ``calr``.

    Attributes:
        local: (N,) int64 local cluster of each crop, unique over the cameras; set before the first
            epoch.

    Raises:
        FailedPrecondition: Cameras are not known, or ``infomap`` is asked for and not installed.
    """

    name = "calr"
    _cameras: NDArray[np.int32]

    def __init__(
        self,
        config: RunConfig,
        cameras: NDArray[np.int32] | None,
        device: torch.device,
        constraints: Constraints | None = None,
    ) -> None:
        if cameras is None:
            raise FailedPrecondition(
                "calr needs the camera of every crop, and this run is camera-free; name a source"
                " with cameras, or use another method",
                field="method",
                reason="NO_CAMERAS",
            )
        if config.calr.clustering == "infomap":
            require_infomap()
        super().__init__(config, cameras, device, constraints)
        self.local: NDArray[np.int64] | None = None
        self._settings = config.calr
        self._codes = torch.from_numpy(cameras.astype(np.int64)).to(device)
        self._weights: Tensor | None = None
        self._head: CameraHead | None = None
        self._dimension: int | None = None

    @property
    def heads(self) -> nn.Module | None:
        """The camera head, where there is something to align."""
        return self._head

    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:
        """Clusters the crops, refines the clusters, rebuilds centroids and weights."""
        if features is None:
            raise ValueError("calr extracts features every epoch")
        config = self._config
        extra: dict[str, float] = {}
        labels, neighbours, seconds, notes = self._group(features.vectors, extra)
        count = int(labels.max(initial=-1)) + 1
        if self._settings.clustering == "infomap":
            _require_modules(count, len(labels), epoch, self._settings)
        require_contrast(count, len(labels), epoch, config)
        extra["unrefined_outliers"] = float(np.count_nonzero(labels < 0))
        if self._settings.refine:
            started = time.perf_counter()
            labels = self._refine(features.vectors, labels, count, neighbours, epoch, extra)
            seconds["refine"] = time.perf_counter() - started
        self._remember(features, labels, count)
        self._weigh(labels, count, epoch, extra)
        self._build_head(features.vectors.shape[1])
        # A crop that refinement has left alone in its class is still trained on.
        return EpochLabels.counted(
            labels,
            count,
            seconds=seconds,
            notes=[*notes, *repetition(count, config)],
            extra=extra,
        )

    def loss(self, batch: Batch) -> Tensor:
        """Weighted InfoNCE, and in the first epochs the camera's loss."""
        logits = self._ready().logits(batch.features)
        loss = functional.cross_entropy(logits, batch.classes, weight=self._weights)
        if self._head is not None and batch.epoch < self._settings.camera_epochs:
            scores = self._head(batch.features)
            aligned = camera_loss(scores, self._codes[batch.rows], self._settings.camera_loss)
            loss = loss + self._settings.camera_weight * aligned
        return loss

    def state_dict(self) -> dict[str, StateValue]:
        """The centroids, for the record, and the shape of the camera head."""
        centroids = None if self._memory is None else self._memory.vectors
        return {"centroids": centroids, "dimension": self._dimension}

    def load_state_dict(self, state: MethodState) -> None:
        """Builds the camera head again; nothing of one epoch's memory enters the next."""
        if (dimension := state["dimension"]) is not None:
            self._build_head(int(dimension))

    def _group(
        self, vectors: NDArray[np.float32], extra: dict[str, float]
    ) -> tuple[NDArray[np.int64], Neighbours | None, dict[str, float], list[str]]:
        """Global labels (N,), neighbours that serve the scores, if any, seconds, notes."""
        settings = self._settings
        if settings.clustering == "infomap":
            return self._group_by_links(vectors)
        found = group(vectors, self._config, self._cameras, constraints=self._constraints)
        extra.update(found.figures)
        # Those of ca-jaccard are split by camera, and of no use for the scores.
        plain = found.neighbours if isinstance(found.neighbours, Neighbours) else None
        if plain is not None and plain.indices.shape[1] < settings.neighbours:
            plain = None
        return found.labels.astype(np.int64), plain, dict(found.seconds), [*found.notes]

    def _group_by_links(
        self, vectors: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], Neighbours | None, dict[str, float], list[str]]:
        settings = self._settings
        found: list[Neighbours] = []

        def label() -> dict[str, Any]:
            started = time.perf_counter()
            found.append(self._nearest(vectors))
            searched = time.perf_counter()
            labels = infomap_labels(
                found[0],
                min_cosine=settings.min_cosine,
                min_size=settings.min_size,
                seed=self._config.seed,
            )
            seconds = {"neighbours": searched - started, "infomap": time.perf_counter() - searched}
            return {"labels": torch.from_numpy(labels.astype(np.int64)), "seconds": seconds}

        given = current().once(label)
        return given["labels"].numpy(), next(iter(found), None), given["seconds"], []

    def _nearest(self, vectors: NDArray[np.float32]) -> Neighbours:
        if self._config.camera_centering:
            vectors = centre_by_camera(vectors, self._cameras)
        threads = self._config.threads or None
        return nearest(vectors, self._settings.neighbours, threads=threads)

    def _refine(
        self,
        vectors: NDArray[np.float32],
        labels: NDArray[np.int64],
        count: int,
        neighbours: Neighbours | None,
        epoch: int,
        extra: dict[str, float],
    ) -> NDArray[np.int64]:
        if self.local is None:
            raise ValueError("the local clusters come first")
        settings = self._settings

        def choose() -> Tensor:
            near = self._nearest(vectors) if neighbours is None else neighbours
            columns = slice(settings.neighbours)
            near = Neighbours(near.indices[:, columns], near.similarities[:, columns])
            scores = pivot_scores(near, settings.min_cosine)
            return torch.from_numpy(pivots(scores, labels, count, settings.pivot))

        chosen: NDArray[np.int64] = current().once(choose).numpy()
        dropped = misplaced(labels, chosen, self._cameras, self.local)
        probability = drop_probability(settings.pace, epoch, self._config.epochs)
        if probability < 1.0:
            sequence = np.random.SeedSequence([self._config.seed, epoch, _PACE_STREAM])
            dropped &= np.random.default_rng(sequence).random(len(labels)) <= probability
        extra["pivots"] = float(np.count_nonzero(chosen >= 0))
        extra["refined"] = float(np.count_nonzero(dropped))
        return np.where(dropped, -1, labels)

    def _weigh(
        self, labels: NDArray[np.int64], count: int, epoch: int, extra: dict[str, float]
    ) -> None:
        entropy = camera_entropy(labels, self._cameras, count)
        extra["single_camera_clusters"] = float(np.count_nonzero(entropy == 0.0))
        self._weights = None
        if self._settings.entropy_weights and epoch >= self._settings.entropy_epoch:
            weights = entropy_weights(entropy, self._settings.entropy_floor)
            self._weights = torch.from_numpy(weights.astype(np.float32)).to(self._device)

    def _build_head(self, dimension: int) -> None:
        self._dimension = dimension
        cameras = int(self._cameras.max(initial=0)) + 1
        if self._head is None and self._settings.camera_epochs and cameras > 1:
            self._head = CameraHead(dimension, cameras).to(self._device)


def _require_modules(clusters: int, crops: int, epoch: int, settings: CalrSettings) -> None:
    if clusters >= 2:
        return
    raise FailedPrecondition(
        f"epoch {epoch + 1}: Infomap finds {clusters} clusters of at least {settings.min_size} in"
        f" {crops} crops: lower calr.min_size where they are too small, calr.min_cosine"
        f" ({settings.min_cosine}) where crops have no links, raise it where all hang together, or"
        " use calr.clustering=dbscan",
        field="calr.min_cosine",
        reason="ONE_CLUSTER" if clusters else "NO_CLUSTERS",
    )
