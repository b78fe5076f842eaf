"""Stage 1 of CALR (Li et al. 2024): one camera's own model, trained for its labels alone.

Each epoch: features of the camera's crops -> local clusters (``adapt.methods.local_clusters``) ->
cluster memory and InfoNCE (``adapt.memory.cluster``). The labels of the best silhouette are kept,
the model is not. No crop is an outlier.

Intended deviations: crops are labelled once more after the last epoch, whose training would be for
nothing otherwise; so no epoch at all leaves the clusters of the untouched encoder. A single local
cluster, which a cut by distance may leave, is contrasted with nothing: a loss of 0, no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adapt.methods.centroid_contrast import CentroidContrast
from adapt.methods.local_clusters import LocalClusters, local_clusters
from adapt.methods.method import EpochLabels, Features, MethodState, StateValue
from adapt.training.config import RunConfig
from adapt.training.distributed import current

__all__ = ["IntraCamera"]


class IntraCamera(CentroidContrast):
    """What trains the model of one camera.

    Attributes:
        kept: The labels of the best silhouette so far.
        kept_epoch: Epoch, from 0, at whose beginning they were made.
        silhouettes: Of every labelling so far.
    """

    name = "calr"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        super().__init__(config, None, device)
        self.kept: LocalClusters | None = None
        self.kept_epoch = 0
        self.silhouettes: list[float] = []

    def label(self, features: Features) -> LocalClusters:
        """Clusters the camera's crops, and keeps the labels where they are the best so far."""
        threads = self._config.threads or None

        def cluster() -> dict[str, Any]:
            made = local_clusters(features.vectors, self._config.calr, threads=threads)
            return {
                "labels": torch.from_numpy(made.labels),
                "silhouettes": list(made.silhouettes),
                "notes": list(made.notes),
            }

        given = current().once(cluster)
        found = LocalClusters(
            given["labels"].numpy(), tuple(given["silhouettes"]), tuple(given["notes"])
        )
        if self.kept is None or found.better_than(self.kept):
            self.kept, self.kept_epoch = found, len(self.silhouettes)
        self.silhouettes.append(found.silhouette)
        return found

    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:  # noqa: ARG002
        """Labels the crops and rebuilds the centroids."""
        if features is None:
            raise ValueError("calr extracts features every epoch")
        found = self.label(features)
        self._remember(features, found.labels, found.count)
        return EpochLabels.counted(
            found.labels,
            found.count,
            notes=found.notes,
            extra={"silhouette": found.silhouette},
        )

    def state_dict(self) -> dict[str, StateValue]:
        """The labels kept, and how good each labelling was."""
        kept = self.kept
        return {
            "labels": None if kept is None else torch.from_numpy(kept.labels),
            "kept_silhouettes": None if kept is None else _float64(kept.silhouettes),
            "notes": None if kept is None else "\n".join(kept.notes),
            "kept_epoch": self.kept_epoch,
            "silhouettes": _float64(self.silhouettes),
        }

    def load_state_dict(self, state: MethodState) -> None:
        """Takes back what ``state_dict`` gave; the next epoch builds its own centroids."""
        labels, notes = state["labels"], state["notes"]
        own, every = state["kept_silhouettes"], state["silhouettes"]
        if isinstance(labels, Tensor) and isinstance(own, Tensor) and isinstance(every, Tensor):
            self.kept = LocalClusters(
                labels.numpy(), tuple(own.tolist()), tuple(str(notes).splitlines())
            )
            self.silhouettes = every.tolist()
        self.kept_epoch = int(state["kept_epoch"] or 0)


def _float64(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
