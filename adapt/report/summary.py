"""The label-free record of a run: what each epoch found, learnt and cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["EpochRecord", "RunSummary", "json_bytes", "write_json"]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: Counted from 1.
        clusters: Classes of more than one crop.
        outliers: Crops in none.
        largest: Crops of the largest class.
        loss: Mean over the iterations.
        lr: Learning rate of the last iteration.
        iterations: Optimiser steps.
        images_per_second: Training images by seconds of ``train``.
        seconds: Wall seconds of extract, cluster and train.
        cluster_seconds: Of ``cluster``, by step.
        extra: Figures of the method.
        labels: Digest of the pseudo-labels, by which two runs are compared epoch by epoch.
    """

    epoch: int
    clusters: int
    outliers: int
    largest: int
    loss: float
    lr: float
    iterations: int
    images_per_second: float
    seconds: Mapping[str, float]
    cluster_seconds: Mapping[str, float]
    extra: Mapping[str, float] = field(default_factory=dict)
    labels: str = ""


@dataclass
class RunSummary:
    """Everything reported of a run; no identity and no image.

    Attributes:
        crops: Counts of the source: usable, skipped by reason, by camera.
        epochs: One record each.
        warnings: Degradations, each once.
        seconds: Wall seconds of the phases outside the epochs.
        local_clusters: CALR's first stage, a record of each camera.
        complete: Whether the bundle was written.
    """

    method: str
    run_id: str
    crops: dict[str, Any] = field(default_factory=dict)
    epochs: list[EpochRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    local_clusters: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False

    def warn(self, message: str) -> bool:
        """Adds a warning; False when it is there already."""
        if message in self.warnings:
            return False
        self.warnings.append(message)
        return True

    def payload(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> RunSummary:
        """The summary that gave ``payload``."""
        epochs = [EpochRecord(**record) for record in payload["epochs"]]
        return cls(**{**payload, "epochs": epochs})

    def restore(self, payload: Mapping[str, Any]) -> None:
        """Takes epochs and warnings of an interrupted run back in front of this one's."""
        self.run_id = str(payload["run_id"])
        self.epochs = [EpochRecord(**record) for record in payload["epochs"]]
        self.warnings = list(dict.fromkeys([*payload["warnings"], *self.warnings]))


def json_bytes(payload: Mapping[str, Any]) -> bytes:
    """``payload`` as indented JSON."""
    return (json.dumps(payload, indent=2, default=str) + "\n").encode()


def write_json(path: Path, payload: Mapping[str, Any]) -> None:
    """Writes ``payload`` so that ``path`` is never half a file."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(json_bytes(payload))
    partial.replace(path)
