"""Nights against a real service; training and gate are stood in for.

What trains and what judges have tests of their own, and `test_nightly.py` runs both for real. Here
a stand-in for the training writes a real bundle, so that every ending can be brought about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

import adapt.nightly.admission
import adapt.nightly.learning
from adapt.gate import Verdict
from adapt.nightly.night import run_night
from adapt.nightly.outcome import NightOutcome
from adapt.nightly.settings import NightSettings
from adapt.nightly.state import NightState
from resight.bundle import open_bundle
from resight.client.connection import Connection
from resight.crops import open_source
from resight.v1 import adaptation_service_pb2 as pb
from resight.v1.gallery_service_pb2 import CreateCameraRequest, IngestCropsRequest
from resight.v1.model_service_pb2 import ListModelsRequest, Model
from resight.v1.types_pb2 import Camera, Crop

State = pb.AdaptationRun.State
CAMERAS = ("door", "..", "yard")  # the second is a name the API allows and no folder may have


def ingest(
    connection: Connection, gallery: str, images: list[bytes], *, first: int = 0, apart: int = 1
) -> list[str]:
    """Crops over three cameras: half of them from the first, a sixth from the second."""
    for camera in CAMERAS:
        connection.gallery.CreateCamera(
            CreateCameraRequest(gallery=gallery, camera=Camera(camera_id=camera))
        )
    requests = [
        IngestCropsRequest(
            gallery=gallery,
            sequence=number,
            image=image,
            crop=Crop(
                camera_id=CAMERAS[(0, 2, 0, 1, 0, 2)[number % 6]],
                capture_time=Timestamp(seconds=1_767_225_600 + apart * number),
                track_id=f"t{number // 2}",
                attributes={"name": "Ann"},
            ),
        )
        for number, image in enumerate(images, first)
    ]
    answers = {a.sequence: a.crop_id for a in connection.gallery.IngestCrops(iter(requests))}
    return [answers[request.sequence] for request in requests]


class Training:
    """Stands in for the training: looks at the crops, writes a real bundle."""

    def __init__(self, make_bundle: Callable[..., Path], height: int = 40) -> None:
        self.make_bundle = make_bundle
        self.height = height
        self.crops: list[Any] = []
        self.epochs = 0
        self.epoch_seconds = 1.0
        self.during: Callable[[], None] = lambda: None

    def __call__(self, manifest: Path, output: Path, config: Any, *, should_stop: Any) -> Any:
        found = open_source(manifest).scan(check="decode")
        assert not found.skipped
        self.crops = list(found.crops)
        self.images = {crop.path.stem: crop.path.read_bytes() for crop in found.crops}
        self.folder = manifest.parent
        output.mkdir()
        self.during()
        for _ in range(config.epochs):
            self.epochs += 1
            if should_stop(self.epoch_seconds):
                break
        self.make_bundle(output / "bundle", height=self.height)
        (output / "skipped.csv").write_text(f"path,reason,detail\n{self.crops[0].path},broken,\n")
        return SimpleNamespace(
            directory=SimpleNamespace(skipped=output / "skipped.csv"),
            summary=SimpleNamespace(
                payload=lambda: {
                    "epochs": [{"epoch": 1, "loss": float("nan"), "clusters": 3, "outliers": 1}],
                    "seconds": {"export": 1.0},
                }
            ),
        )


def verdict(*, passed: bool) -> Verdict:
    return Verdict(
        passed=passed,
        score=0.25 if passed else -3.0,
        baseline_score=0.125,
        reasons=("clusters are stable",) if passed else ("collapsed: 1 cluster", "drifted"),
        signals=(),
        candidate="c",
        live="l",
        baseline="b",
        crops=7,
        notes=(),
        settings={},
        seconds={},
    )


class Night:
    """Runs nights of one gallery with what they are told."""

    def __init__(self, target: str, gallery: str, live: Path, folder: Path, patch: Any) -> None:
        self.state = NightState(folder / "state")
        self.told: dict[str, Any] = {
            "target": target, "gallery": gallery, "state": self.state.path, "live": live,
            "min_crops": 2, "report": False, "lease_seconds": 120,
        }  # fmt: skip
        self.gate = verdict(passed=True)
        self.asked: dict[str, Any] = {}
        self._patch = patch

    def run(self, training: Any, *, epochs: int = 3, **told: Any) -> NightOutcome:
        def judge(candidate: Path, live: Path, crops: Path, *, baseline: Path, **_: Any) -> Verdict:
            self.asked = {"candidate": candidate, "live": live, "baseline": baseline}
            judged = open_source(crops).scan().require_crops()
            self.asked["crops"] = {crop.path.stem for crop in judged}
            return replace(self.gate, candidate=open_bundle(candidate).model_version)

        self._patch.setattr(adapt.nightly.learning, "learn", training)
        self._patch.setattr(adapt.nightly.admission, "judge", judge)
        settings = NightSettings(**(self.told | told))
        outcome = NightOutcome(settings.gallery)
        config: Any = SimpleNamespace(epochs=epochs, method="stand-in")
        state = NightState(settings.state, memory_only=settings.memory_only)
        with state.opened():
            run_night(settings, open_bundle(settings.live), config, state, outcome)
        assert not state.work.exists()
        return outcome


def run_of(connection: Connection, gallery: str, outcome: NightOutcome) -> pb.AdaptationRun:
    request = pb.GetAdaptationRunRequest(gallery=gallery, run_id=outcome.run_id)
    return connection.adaptation.GetAdaptationRun(request).run


def used(connection: Connection, gallery: str, outcome: NightOutcome) -> dict[str, bool]:
    request = pb.ListAdaptationRunCropsRequest(gallery=gallery, run_id=outcome.run_id)
    crops = connection.adaptation.ListAdaptationRunCrops(request).crops
    return {crop.crop_id: crop.replay for crop in crops}


def candidates(connection: Connection, gallery: str) -> list[Model]:
    models = connection.models.ListModels(ListModelsRequest(gallery=gallery)).models
    return [model for model in models if model.state == Model.STATE_CANDIDATE]


def left(night: Night) -> set[str]:
    return {path.name for path in night.state.path.iterdir()}
