"""Every way a night can end, against a real service; training and gate are stood in for here.

What trains and what judges have tests of their own, and `test_nightly.py` runs both for real. Here
a stand-in for the training writes a real bundle, so that every ending can be brought about.
"""

from __future__ import annotations

import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

import adapt.nightly.admission
import adapt.nightly.learning
import adapt.nightly.pull
from adapt.gate import GateSettings, Verdict
from adapt.nightly.night import run_night
from adapt.nightly.outcome import NightOutcome
from adapt.nightly.settings import NightSettings
from adapt.nightly.state import NightState
from resight.bundle import open_bundle
from resight.client import model_upload
from resight.client.connection import Connection, connect
from resight.crops import open_source
from resight.errors import FailedPrecondition, InvalidArgument
from resight.v1 import adaptation_service_pb2 as pb
from resight.v1.gallery_service_pb2 import (
    CreateCameraRequest,
    DeleteCropRequest,
    IngestCropsRequest,
)
from resight.v1.model_service_pb2 import ListModelsRequest, Model
from resight.v1.types_pb2 import Camera, Crop
from tests.ports import free_port

State = pb.AdaptationRun.State
CAMERAS = ("door", "..", "yard")  # the second is a name the API allows and no folder may have


@pytest.fixture
def gallery(request: pytest.FixtureRequest) -> str:
    """A gallery of the test's own."""
    return "n" + "".join(c for c in request.node.name.lower() if c.isalnum())[:50]


@pytest.fixture
def connection(service: Any) -> Iterator[Connection]:
    with connect(service.grpc) as connection:
        yield connection


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
            "min_crops": 2, "report": False, "lease_seconds": 30,
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


@pytest.fixture
def night(
    service: Any, gallery: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Night:
    return Night(service.grpc, gallery, tiny_bundle, tmp_path, monkeypatch)


@pytest.fixture
def images(make_jpeg: Callable[..., bytes]) -> list[bytes]:
    return [make_jpeg(number) for number in range(24)]


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


def test_a_success_leaves_a_verified_candidate_and_a_record(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ids = ingest(connection, gallery, images)
    training = Training(make_bundle)
    outcome = night.run(training)
    assert (outcome.result, outcome.exit_code, outcome.reason) == ("succeeded", 0, "")
    by_id = {crop.path.stem: crop for crop in training.crops}
    assert training.images == dict(zip(ids, images, strict=True))
    for number, crop_id in enumerate(ids):
        crop = by_id[crop_id]
        assert crop.camera == CAMERAS[(0, 2, 0, 1, 0, 2)[number % 6]]
        assert crop.capture_time is not None
        assert crop.capture_time.timestamp() == 1_767_225_600 + number
        assert crop.track == f"t{number // 2}"
        assert not crop.attributes, "what could name a person is not in the training path"
        assert crop.path.is_relative_to(training.folder), "whatever the camera is called"

    (model,) = candidates(connection, gallery)
    assert model.model_version == outcome.model_version
    assert model.gate.score == 0.25
    assert list(model.gate.reasons) == ["clusters are stable"]
    kept = night.state.candidate
    assert kept.stat().st_size == model.bundle_size_bytes
    assert open_bundle(kept).model_version == model.model_version
    with tarfile.open(kept) as archive:
        assert "gate.json" in archive.getnames()
    run = run_of(connection, gallery, outcome)
    assert (run.state, run.model_version) == (State.STATE_SUCCEEDED, model.model_version)
    assert run.figures["summary"]["epochs"][0]["clusters"] == 3
    assert run.figures["summary"]["epochs"][0]["loss"] is None, "NaN is no JSON"
    assert run.figures["gate"]["score"] == 0.25
    unusable = training.crops[0].path.stem
    assert used(connection, gallery, outcome) == {i: False for i in ids if i != unusable}
    assert outcome.crops == {
        "available": 24, "new": 23, "replay": 0, "unusable": 1,
        "image_missing": 0, "image_damaged": 0, "held_out": 0,
    }  # fmt: skip
    assert open_bundle(night.state.baseline).model_version == outcome.live_version
    assert night.asked["baseline"] == night.state.baseline
    assert night.state.memory().last_success == outcome.ended
    assert left(night) == {".lock", "baseline.tar", "candidate.tar", "night.json"}


def test_a_refusal_leaves_nothing_but_its_reasons(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images)
    night.gate = verdict(passed=False)
    outcome = night.run(Training(make_bundle))
    assert (outcome.result, outcome.exit_code) == ("refused", 3)
    assert outcome.message == "collapsed: 1 cluster; drifted"
    run = run_of(connection, gallery, outcome)
    assert (run.state, run.reason, run.message) == (
        State.STATE_REFUSED, "GATE_REFUSED", outcome.message,
    )  # fmt: skip
    assert run.figures["gate"]["passed"] is False
    assert candidates(connection, gallery) == []
    assert not night.state.candidate.exists()
    assert night.state.memory().last_success is None
    night.gate = verdict(passed=True)
    again = night.run(Training(make_bundle))
    assert again.crops["new"] == 23, "its crops are there for the next night"


def test_too_few_crops_are_kept_for_the_next_night(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images[:5])
    outcome = night.run(Training(make_bundle), min_crops=6)
    assert (outcome.result, outcome.reason, outcome.exit_code) == ("skipped", "TOO_FEW_CROPS", 0)
    assert "5 new crops" in outcome.message
    assert run_of(connection, gallery, outcome).state == State.STATE_SKIPPED
    ingest(connection, gallery, images[5:6], first=5)
    assert night.run(Training(make_bundle), min_crops=6).crops["available"] == 6


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (FailedPrecondition("the loss is nan", reason="LOSS_NOT_FINITE"), "LOSS_NOT_FINITE"),
        (InvalidArgument("too few", reason="TOO_FEW_CROPS"), "TOO_FEW_CROPS"),
        (RuntimeError("out of memory"), "INTERNAL"),
        (KeyboardInterrupt(), "INTERRUPTED"),
    ],
    ids=["expected", "input", "bug", "signal"],
)
def test_a_fault_ends_the_run_in_words(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    fault: BaseException,
    reason: str,
) -> None:
    ingest(connection, gallery, images)

    def fails(*_: Any, **__: Any) -> None:
        raise fault

    outcome = None
    if reason in ("INTERNAL", "INTERRUPTED"):
        with pytest.raises(type(fault)):
            night.run(fails)
    else:
        outcome = night.run(fails)
        assert (outcome.result, outcome.exit_code, outcome.reason) == ("failed", 1, reason)
    runs = connection.adaptation.ListAdaptationRuns(pb.ListAdaptationRunsRequest(gallery=gallery))
    (run,) = runs.runs
    assert (run.state, run.reason) == (State.STATE_FAILED, reason)
    assert run.HasField("end_time")
    assert not run.HasField("lease_expire_time"), "the next night may begin at once"
    assert candidates(connection, gallery) == []
    assert left(night) == {".lock", "night.json"}
    told = night.state.memory().last
    assert told is not None
    assert (told["result"], told["reason"]) == ("failed", reason)


def test_a_night_that_lost_its_lease_leaves_nothing(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ingest(connection, gallery, images)
    # A machine that stood still: no heartbeat for longer than the lease.
    monkeypatch.setattr("adapt.nightly.lease.Lease._beat", lambda _: None)
    training = Training(make_bundle)

    def overtaken() -> None:
        time.sleep(1.1)
        request = pb.StartAdaptationRunRequest(gallery=gallery, holder="another")
        connection.adaptation.StartAdaptationRun(request)

    training.during = overtaken
    outcome = night.run(training, lease_seconds=1)
    assert (outcome.result, outcome.reason, outcome.exit_code) == ("failed", "LEASE_LOST", 1)
    assert "another took it" in outcome.message
    run = run_of(connection, gallery, outcome)
    assert run.state == State.STATE_ABANDONED
    assert used(connection, gallery, outcome) == {}
    assert candidates(connection, gallery) == []
    assert not night.state.candidate.exists()


def test_heartbeats_keep_a_lease_shorter_than_the_training(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images)
    training = Training(make_bundle)
    seen: list[str] = []

    def long_training() -> None:
        time.sleep(4.5)
        with pytest.raises(Exception, match="holds the lease"):
            connection.adaptation.StartAdaptationRun(
                pb.StartAdaptationRunRequest(gallery=gallery, holder="another")
            )
        listed = pb.ListAdaptationRunsRequest(gallery=gallery)
        seen.append(connection.adaptation.ListAdaptationRuns(listed).runs[0].progress.stage)

    training.during = long_training
    assert night.run(training, lease_seconds=3).result == "succeeded"
    assert seen == ["train"]


def test_a_lease_held_elsewhere_is_said_in_words(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images)
    request = pb.StartAdaptationRunRequest(gallery=gallery, holder="gpu-7 (process 1)")
    connection.adaptation.StartAdaptationRun(request)
    outcome = night.run(Training(make_bundle))
    assert (outcome.result, outcome.reason, outcome.exit_code) == ("held", "LEASE_HELD", 1)
    assert "gpu-7 (process 1) holds the lease" in outcome.message
    runs = connection.adaptation.ListAdaptationRuns(pb.ListAdaptationRunsRequest(gallery=gallery))
    assert len(runs.runs) == 1


def test_an_encoder_that_is_not_live_is_refused_before_a_run_starts(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
    tmp_path: Path,
) -> None:
    ingest(connection, gallery, images)
    other = make_bundle(tmp_path / "other", height=24)
    outcome = night.run(Training(make_bundle), live=other)
    assert (outcome.result, outcome.reason) == ("failed", "NOT_THE_LIVE_ENCODER")
    runs = connection.adaptation.ListAdaptationRuns(pb.ListAdaptationRunsRequest(gallery=gallery))
    assert not runs.runs


def test_a_service_that_is_away_is_said_in_words(
    night: Night, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resight.client.connection._CONNECT_SECONDS", 0.2)
    outcome = night.run(Training(make_bundle), target=f"127.0.0.1:{free_port()}")
    assert (outcome.result, outcome.reason, outcome.exit_code) == ("failed", "UNAVAILABLE", 1)
    assert "no service answers" in outcome.message


def test_the_second_night_replays_every_camera_of_before(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    old = ingest(connection, gallery, images[:18])
    assert night.run(Training(make_bundle, 40)).result == "succeeded"
    frozen = night.state.baseline.read_bytes()
    new = ingest(connection, gallery, images[18:], first=18)
    gone = old[1]
    connection.gallery.DeleteCrop(DeleteCropRequest(gallery=gallery, crop_id=gone))
    training = Training(make_bundle, 48)
    outcome = night.run(training, replay=1.5)
    assert outcome.result == "succeeded"
    assert outcome.crops["new"] + outcome.crops["replay"] + 1 == 6 + 9
    replayed = [crop for crop in training.crops if crop.path.stem in old]
    assert {c: sum(crop.camera == c for crop in replayed) for c in CAMERAS} == {
        "door": 3, "..": 3, "yard": 3,
    }, "an even share each, though the door has three times as many"  # fmt: skip
    assert gone not in {crop.path.stem for crop in training.crops}
    assert {crop.path.stem for crop in training.crops} - set(old) == set(new)
    marked = used(connection, gallery, outcome)
    assert all(marked[crop_id] is (crop_id in old) for crop_id in marked)
    assert len(candidates(connection, gallery)) == 2
    assert night.state.baseline.read_bytes() == frozen


def test_the_gate_judges_by_crops_that_no_night_trains_on(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    gate = GateSettings.model_construct(least=1, held_out=0.25)
    # A new block of time with every other crop.
    ids = set(ingest(connection, gallery, images, apart=300))
    training = Training(make_bundle, 40)
    outcome = night.run(training, gate=gate)
    assert outcome.result == "succeeded"
    trained, judged = {crop.path.stem for crop in training.crops}, night.asked["crops"]
    assert judged
    assert not trained & judged
    assert trained | judged <= ids
    assert outcome.crops["held_out"] == len(judged)
    assert set(used(connection, gallery, outcome)) < trained
    assert outcome.verdict is not None
    assert outcome.verdict["notes"] == [
        f"judged by {len(judged)} crops that were not trained on"
    ]  # fmt: skip

    new = set(ingest(connection, gallery, images, first=288, apart=300))
    later = Training(make_bundle, 48)
    again = night.run(later, gate=gate, replay=2.0)
    assert again.result == "succeeded"
    replayed = {crop.path.stem for crop in later.crops} - new
    assert trained <= replayed, "all of them were asked for"
    assert not replayed & judged
    assert night.asked["crops"] <= new


def test_most_crops_are_shared_evenly_by_the_cameras(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images)
    training = Training(make_bundle)
    assert night.run(training, max_crops=14).result == "succeeded"
    counts = {c: sum(crop.camera == c for crop in training.crops) for c in CAMERAS}
    assert counts == {"door": 5, "..": 4, "yard": 5}, "the second camera has but four"


def test_the_time_budget_ends_the_training_and_keeps_its_result(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images)
    training = Training(make_bundle)
    # An epoch of 390 s was fine, but another, with its margin, would not fit into 80 % of 500 s.
    training.epoch_seconds = 390.0
    outcome = night.run(training, epochs=50, time_budget=500)
    assert (outcome.result, training.epochs) == ("succeeded", 1)
    ingest(connection, gallery, images[:3], first=100)
    late = night.run(Training(make_bundle, 48), epochs=50, time_budget=1e-3)
    assert (late.result, late.reason, late.exit_code) == ("failed", "TIME_BUDGET", 1)


def test_a_vector_map_that_does_not_hold_is_left_out_with_a_note(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images)
    outcome = night.run(Training(make_bundle), vector_map=True)
    assert outcome.result == "succeeded", "24 crops are too few for a map, not for a night"
    (noted,) = outcome.notes
    assert noted.startswith("no vector map: ")
    assert not open_bundle(night.state.candidate).manifest.vector_maps


def test_memory_only_keeps_crops_off_the_disk(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
    tmp_path: Path,
) -> None:
    ingest(connection, gallery, images)
    training = Training(make_bundle)
    on_disk: list[Path] = []

    def look() -> None:
        on_disk.extend(path for path in tmp_path.rglob("*.jpg"))

    training.during = look
    outcome = night.run(training, memory_only=True)
    assert outcome.result == "succeeded"
    assert on_disk == []
    assert training.folder.is_relative_to("/dev/shm")
    assert not training.folder.exists()


def test_a_service_without_images_refuses_the_night(
    start_service: Any,
    night: Night,
    make_bundle: Callable[..., Path],
    images: list[bytes],
    tmp_path: Path,
) -> None:
    with (
        start_service(tmp_path / "data", RESIGHT_PRIVACY__STORE_IMAGES="false") as service,
        connect(service.grpc) as connection,
    ):
        ingest(connection, "default", images)
        outcome = night.run(Training(make_bundle), target=service.grpc, gallery="default")
        assert (outcome.result, outcome.reason) == ("failed", "IMAGES_NOT_STORED")
        assert "privacy.store_images" in outcome.message


def test_figures_that_are_too_much_cost_no_candidate(
    start_service: Any,
    night: Night,
    make_bundle: Callable[..., Path],
    images: list[bytes],
    tmp_path: Path,
) -> None:
    small = {"RESIGHT_NIGHTLY__MAX_FIGURES_BYTES": "1024"}
    night.gate = replace(night.gate, notes=("a long note " * 100,))
    with (
        start_service(tmp_path / "data", **small) as service,
        connect(service.grpc) as connection,
    ):
        ingest(connection, "default", images)
        outcome = night.run(Training(make_bundle), target=service.grpc, gallery="default")
        assert outcome.result == "succeeded", outcome.message
        assert "nightly.max_figures_bytes" in outcome.notes[0]
        run = run_of(connection, "default", outcome)
        assert run.figures["crops"]["new"] == 23
        assert "gate" not in run.figures


@pytest.mark.parametrize("when", ["pull", "train", "register"])
def test_a_service_that_dies_and_comes_back_costs_nothing(
    start_service: Any,
    night: Night,
    make_bundle: Callable[..., Path],
    make_jpeg: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    # Long enough that the stream is not yet in this process's buffers when it is cut.
    images = [make_jpeg(number) + bytes(300_000) for number in range(24)]
    port = free_port()
    data = tmp_path / "data"
    with restartable(start_service, data, port) as restart:
        with connect(f"127.0.0.1:{port}") as connection:
            ids = ingest(connection, "default", images)
        training = Training(make_bundle)
        restarted = threading.Event()

        def once() -> None:
            if not restarted.is_set():
                restarted.set()
                restart()

        if when == "train":
            training.during = once
        elif when == "register":
            parts = model_upload.parts

            def cut(*told: Any) -> Iterator[Any]:
                for number, part in enumerate(parts(*told)):
                    if number:
                        once()
                    yield part

            monkeypatch.setattr("adapt.nightly.upload.parts", cut)
        else:
            keep = adapt.nightly.pull.Pull._keep

            def kept(pull: Any, *told: Any, **named: Any) -> None:
                keep(pull, *told, **named)
                if len(pull.crops) == 3:
                    once()

            monkeypatch.setattr(adapt.nightly.pull.Pull, "_keep", kept)
        outcome = night.run(training, target=f"127.0.0.1:{port}", gallery="default")
        assert restarted.is_set()
        assert outcome.result == "succeeded", outcome.message
        assert sorted(crop.path.stem for crop in training.crops) == sorted(ids)
        if when == "pull":
            assert outcome.stream_retries >= 1
        with connect(f"127.0.0.1:{port}") as connection:
            assert len(candidates(connection, "default")) == 1


@contextmanager
def restartable(start_service: Any, data: Path, port: int) -> Iterator[Callable[[], None]]:
    """A service on one port that can be killed and started again."""
    running: list[Any] = []

    def start() -> None:
        context = start_service(data, "--grpc-port", str(port))
        running.append((context, context.__enter__()))

    def stop(how: int) -> None:
        context, service = running.pop()
        service.stop(how)
        context.__exit__(None, None, None)

    def restart() -> None:
        stop(signal.SIGKILL)
        start()

    start()
    try:
        yield restart
    finally:
        stop(signal.SIGTERM)
