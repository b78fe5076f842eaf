"""Every way a night can end, and what it leaves."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resight.bundle import open_bundle
from resight.client.connection import Connection, connect
from resight.errors import FailedPrecondition, InvalidArgument
from resight.v1 import adaptation_service_pb2 as pb
from tests.e2e.nights.stand_in import (
    CAMERAS,
    Night,
    State,
    Training,
    candidates,
    ingest,
    left,
    run_of,
    used,
    verdict,
)
from tests.ports import free_port


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
