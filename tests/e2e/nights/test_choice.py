"""Which crops a night trains on, and which it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adapt.gate import GateSettings
from resight.client.connection import Connection
from resight.v1.gallery_service_pb2 import DeleteCropRequest
from tests.e2e.nights.stand_in import CAMERAS, Night, Training, candidates, ingest, used


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
