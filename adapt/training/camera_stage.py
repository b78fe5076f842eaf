"""The first stage of CALR, camera by camera: a model each, from the run's initial encoder.

What remains of a camera is its local labels, in ``RUN/local_clusters/camera-NNNN.pt``; of a camera
in training its checkpoint beside it. A stage that was killed at any moment takes up both. Every
camera starts from the run's seed anew, so that the order in which cameras are trained, or which of
them are taken up, changes nothing; the generators of the run are left as they were.

No camera stops the run: one with too few crops has them all as one local cluster, so that nothing
of it is refined; one whose training fails keeps its best labels so far. A stage that is told to
stop keeps those of the camera in training, and the cameras after it are as those with too few
crops. All of this is reported.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapt.backbones.embedder import Embedder
from adapt.data.cache import CropCache
from adapt.methods.intra_camera import IntraCamera
from adapt.methods.local_clusters import too_few
from adapt.methods.method import Features
from adapt.report.summary import RunSummary
from adapt.training import randomness
from adapt.training.batch_norm import group_batch_norms
from adapt.training.camera_config import of_a_camera
from adapt.training.checkpoint import Identity, load_checkpoint, save_checkpoint
from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet
from adapt.training.distributed import current
from adapt.training.engine import Engine
from adapt.training.extraction import Extractor
from adapt.training.views import Workload
from resight.console import note
from resight.errors import FailedPrecondition

__all__ = ["CameraStage", "ExtractorOf"]

ExtractorOf = Callable[[CropCache], Extractor]
ShouldStop = Callable[[float], bool]


@dataclass(frozen=True)
class _Outcome:
    """Of one camera.

    Attributes:
        labels: (n,) from 0.
        record: For the summary.
        epoch_seconds: How long its last epoch took; None where nothing was computed now.
        whole: Whether it came to its end.
    """

    labels: NDArray[np.int64]
    record: dict[str, Any]
    epoch_seconds: float | None = None
    whole: bool = True


class CameraStage:
    """Local clusters of every camera.

    Args:
        encoder: The initial one; copied.
        crops: With cameras.
        work: Of the run.
        extractor_of: Makes an extractor for some of the crops.
        folder: Where results and checkpoints are.
        identity: Of the run.
        summary: Takes a record of each camera, and warnings.
    """

    def __init__(
        self,
        encoder: Embedder,
        config: RunConfig,
        crops: CropSet,
        work: Workload,
        extractor_of: ExtractorOf,
        *,
        folder: Path,
        identity: Identity,
        summary: RunSummary,
    ) -> None:
        self._encoder = copy.deepcopy(encoder)
        self._config = of_a_camera(config)
        self._crops = crops
        self._work = work
        self._extractor_of = extractor_of
        self._folder = folder
        source = encoder.init_report.sha256[:16]
        self._identity = replace(identity, network=f"{identity.network}-{source}")
        self._summary = summary

    def run(self, should_stop: ShouldStop | None = None) -> NDArray[np.int64]:
        """Local cluster (N,) of every crop, unique over the cameras.

        Args:
            should_stop: Told after each epoch of a camera how many seconds it took; the stage ends
                with that epoch when it answers true.

        Raises:
            BundleCorrupt, FailedPrecondition: The folder holds results of another run.
        """
        codes = self._crops.cameras.codes
        if codes is None:
            raise ValueError("the stage needs cameras")
        self._folder.mkdir(exist_ok=True)
        state = randomness.capture(self._work.device)
        labels = np.full(len(codes), -1, dtype=np.int64)
        used = 0
        self._summary.local_clusters.clear()
        names = self._crops.cameras.names
        for code, name in enumerate(names):
            members = np.flatnonzero(codes == code).astype(np.int64)
            outcome = self._camera(code, name, members, should_stop)
            labels[members] = outcome.labels + used
            used += int(outcome.labels.max()) + 1
            self._summary.local_clusters.append(outcome.record)
            for message in outcome.record["notes"]:
                self._warn(f"camera {name}: {message}")
            left = len(names) - code - 1
            if left and _is_stopped(outcome, should_stop):
                self._warn(
                    f"the first stage was stopped after camera {name}: without local clusters"
                    f" nothing is refined in the {left} that were left to do"
                )
                labels[codes > code] = used + codes[codes > code] - code - 1
                break
        randomness.restore(state, self._work.device)
        return labels

    def _warn(self, message: str) -> None:
        if self._summary.warn(message):
            note(f"warning: {message}")

    def _camera(
        self, code: int, name: str, members: NDArray[np.int64], should_stop: ShouldStop | None
    ) -> _Outcome:
        result = self._folder / f"camera-{code:04d}.pt"
        checkpoint = self._folder / f"camera-{code:04d}.checkpoint.pt"
        if result.exists():
            state = load_checkpoint(result, self._identity)
            return _Outcome(state["labels"].numpy(), state["record"])
        started = time.perf_counter()
        outcome = self._cluster(name, members, checkpoint, should_stop)
        outcome.record["seconds"] = time.perf_counter() - started
        if not outcome.whole:
            return outcome
        content = {"labels": torch.from_numpy(outcome.labels), "record": outcome.record}
        save_checkpoint(result, self._identity, content)
        if current().first:
            checkpoint.unlink(missing_ok=True)
        return outcome

    def _cluster(
        self,
        name: str,
        members: NDArray[np.int64],
        checkpoint: Path,
        should_stop: ShouldStop | None,
    ) -> _Outcome:
        total = len(self._crops.cameras.names)
        done = len(self._summary.local_clusters)
        note(f"camera {name} ({done + 1} of {total}): {len(members)} crops")
        reason = too_few(len(members), self._config.calr)
        if reason is not None:
            one = np.zeros(len(members), dtype=np.int64)
            why = f"{reason}: they are one local cluster, and nothing of them is refined"
            return _Outcome(one, _record(name, one, [why]))
        started = time.perf_counter()
        randomness.seed_everything(self._config.seed)
        method = IntraCamera(self._config, self._work.device)
        summary = RunSummary(method.name, self._summary.run_id)
        engine = self._engine(method, members, checkpoint, summary)
        notes: list[str] = []
        stopped = False
        try:
            if checkpoint.exists():
                notes += engine.resume()
            engine.run(should_stop)
            stopped = engine.completed < self._config.epochs
            if stopped:
                notes.append(
                    f"stopped after epoch {engine.completed} of {self._config.epochs}; the labels"
                    " so far are kept"
                )
            else:
                method.label(self._extract(engine, members))
        except FailedPrecondition as error:
            if method.kept is None or error.reason == "CHECKPOINT_MISMATCH":
                raise
            notes.append(f"{error.message}; the labels so far are kept")
        if method.kept is None:
            raise ValueError("no labelling was made")
        if skipped := sum(epoch.extra.get("skipped_steps", 0.0) for epoch in summary.epochs):
            notes.append(f"{skipped:.0f} steps were left out, for float16 overflowed")
        labels = method.kept.labels
        record = _record(name, labels, [*method.kept.notes, *notes])
        record |= {
            "silhouette": method.kept.silhouette,
            "kept_epoch": method.kept_epoch,
            "silhouettes": list(method.silhouettes),
            "losses": [epoch.loss for epoch in summary.epochs],
        }
        seconds = time.perf_counter() - started
        if summary.epochs:
            seconds = sum(summary.epochs[-1].seconds.values())
        return _Outcome(labels, record, seconds, whole=not stopped)

    def _engine(
        self,
        method: IntraCamera,
        members: NDArray[np.int64],
        checkpoint: Path,
        summary: RunSummary,
    ) -> Engine:
        model = copy.deepcopy(self._encoder)
        images = self._config.p * self._config.k
        group_batch_norms(model, current().group_size(self._config.bn_group, images))
        cache = _subset(self._crops.cache, members)
        work = replace(
            self._work,
            cache=cache,
            cameras=None,
            extractor=self._extractor_of(cache),
            iterations=self._config.calr.intra_iterations,
        )
        return Engine(
            model,
            method,
            self._config,
            work,
            checkpoint=checkpoint,
            identity=self._identity,
            summary=summary,
        )

    def _extract(self, engine: Engine, members: NDArray[np.int64]) -> Features:
        return self._extractor_of(_subset(self._crops.cache, members))(engine.encoder)


def _is_stopped(outcome: _Outcome, should_stop: ShouldStop | None) -> bool:
    """Whether the stage ends with this camera; only what took time is told."""
    if not outcome.whole:
        return True
    seconds = outcome.epoch_seconds
    if should_stop is None or seconds is None:
        return False
    # Clocks of two ranks differ: the first one's decides, and how long the epoch took there.
    return current().once(lambda: should_stop(seconds))


def _subset(cache: CropCache, members: NDArray[np.int64]) -> CropCache:
    crops = tuple(cache.crops[row] for row in members)
    return replace(cache, rows=cache.rows[members], crops=crops, skipped=())


def _record(name: str, labels: NDArray[np.int64], notes: list[str]) -> dict[str, Any]:
    """What the summary says of a camera."""
    return {
        "camera": name,
        "crops": len(labels),
        "clusters": int(labels.max()) + 1,
        "silhouette": None,
        "kept_epoch": None,
        "silhouettes": [],
        "losses": [],
        "notes": notes,
    }
