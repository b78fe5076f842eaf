"""A night over the API, from its lease to its candidate."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.struct_pb2 import Struct

from resight.bundle import open_bundle
from resight.client.connection import Connection
from resight.v1 import adaptation_service_pb2 as pb
from resight.v1 import model_service_pb2 as models_pb
from tests.e2e.adaptation_runs import State, archive_of, fill, held, refused, start, uploaded

# Of the tests that share a service.
ON_BOTH = pytest.mark.parametrize("service", ["sqlite", "postgresql"], indirect=True)


@ON_BOTH
def test_a_night_from_start_to_candidate(
    connection: Connection,
    service: Any,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
) -> None:
    gallery = "night"
    ids = fill(connection, [make_jpeg(number) for number in range(6)], gallery)
    started = start(connection, gallery)
    key = held(started, gallery)
    assert {c.camera_id: c.new_crops for c in started.cameras} == {"a": 3, "b": 3}
    assert 0 < started.heartbeat_interval.ToMilliseconds() < 300_000
    wrong = {**key, "lease_token": "guess"}
    for call, message in (
        (connection.adaptation.HeartbeatAdaptationRun, pb.HeartbeatAdaptationRunRequest),
        (connection.adaptation.ReportAdaptationRun, pb.ReportAdaptationRunRequest),
    ):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "LEASE_TOKEN_WRONG"):
            call(message(**wrong))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "LEASE_TOKEN_WRONG"):
        list(connection.adaptation.StreamAdaptationCrops(pb.StreamAdaptationCropsRequest(**wrong)))
    *items, _ = connection.adaptation.StreamAdaptationCrops(pb.StreamAdaptationCropsRequest(**key))
    assert [item.crop.crop.crop_id for item in items] == ids
    figures = Struct()
    figures.update({"map": 0.5, "epochs": [{"clusters": 3}], "note": None})
    reported = connection.adaptation.ReportAdaptationRun(
        pb.ReportAdaptationRunRequest(**key, figures=figures, new_crop_ids=ids)
    )
    assert reported.run.new_crops == 6
    large = Struct()
    large.update({"text": "x" * 1_100_000})
    nan = Struct()
    nan.update({"loss": float("nan")})
    for bad in ({"figures": large}, {"figures": nan}, {"new_crop_ids": ids * 2000}):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"):
            connection.adaptation.ReportAdaptationRun(pb.ReportAdaptationRunRequest(**key, **bad))
    succeeded = pb.FinishAdaptationRunRequest(**key, state=State.STATE_SUCCEEDED)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_REGISTERED"):
        connection.adaptation.FinishAdaptationRun(succeeded)

    bundle = make_bundle(tmp_path / "other")
    archive = archive_of(bundle, tmp_path)
    gate = models_pb.GateVerdict(
        outcome=models_pb.GateVerdict.OUTCOME_PASSED, score=0.5, reasons=["ok"], report=figures
    )
    announced = {**key, "gate": gate}
    register = connection.models.RegisterModel
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "LEASE_TOKEN_WRONG"):
        register(uploaded(archive, **{**announced, "lease_token": "guess"}))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"):
        register(iter([models_pb.RegisterModelRequest(chunk=b"x")]))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "ARCHIVE_DIFFERS"):
        register(uploaded(archive, **{**announced, "sha256": bytes(32)}))
    model = register(uploaded(archive, **announced)).model
    assert model.state == models_pb.Model.STATE_CANDIDATE
    assert model.model_version == open_bundle(bundle).model_version
    assert model.gate.report["epochs"][0]["clusters"] == 3
    got = connection.models.GetModel(
        models_pb.GetModelRequest(gallery=gallery, model_version=model.model_version)
    )
    assert got.model == model
    assert got.manifest == open_bundle(bundle).manifest
    ended = connection.adaptation.FinishAdaptationRun(succeeded).run
    assert (ended.state, ended.model_version) == (State.STATE_SUCCEEDED, model.model_version)

    listed = connection.adaptation.ListAdaptationRunCrops(
        pb.ListAdaptationRunCropsRequest(gallery=gallery, run_id=started.run.run_id)
    )
    assert sorted(crop.crop_id for crop in listed.crops) == sorted(ids)
    run = connection.adaptation.GetAdaptationRun(
        pb.GetAdaptationRunRequest(gallery=gallery, run_id=started.run.run_id)
    ).run
    assert run.figures == figures
    second = start(connection, gallery)
    assert {c.camera_id: (c.new_crops, c.older_crops) for c in second.cameras} == {
        "a": (0, 3),
        "b": (0, 3),
    }
    metrics = httpx.get(f"http://{service.rest}/metrics").text
    for line in (
        f'resight_adaptation_runs_total{{gallery="{gallery}",outcome="succeeded"}} 1.0',
        f'resight_adaptation_lease_held{{gallery="{gallery}"}} 1.0',
        f'resight_adaptation_crops_used_total{{gallery="{gallery}",use="new"}} 6.0',
        f'resight_adaptation_last_success_timestamp_seconds{{gallery="{gallery}"}}',
        'resight_adaptation_crops_streamed_total{outcome="sent"}',
    ):
        assert line in metrics, line
    assert started.run.run_id not in metrics


@ON_BOTH
def test_rest_says_the_same(
    connection: Connection,
    service: Any,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
) -> None:
    gallery = "night-rest"
    images = [make_jpeg(number) for number in range(5)]
    ids = fill(connection, images, gallery)
    with httpx.Client(base_url=f"http://{service.rest}/v1/galleries/{gallery}") as client:
        answer = client.post("/adaptation-runs", json={"holder": "rest", "lease_seconds": 300})
        assert answer.status_code == 201
        started = answer.json()
        assert started["heartbeat_interval_seconds"] == 100
        held_by = client.post("/adaptation-runs", json={"holder": "other"})
        assert held_by.status_code == 409
        assert held_by.headers["content-type"] == "application/problem+json"
        assert held_by.json()["reason"] == "LEASE_HELD"
        run = f"/adaptation-runs/{started['run']['run_id']}"
        mine = {"Resight-Lease": started["lease_token"]}
        beat = client.post(
            f"{run}/heartbeat", headers=mine, json={"progress": {"stage": "pull", "fraction": 0.1}}
        )
        assert beat.json()["progress"]["stage"] == "pull"
        assert (
            client.post(f"{run}/heartbeat", headers={"Resight-Lease": "x"}, json={}).json()[
                "reason"
            ]
            == "LEASE_TOKEN_WRONG"
        )
        assert client.post(f"{run}/heartbeat", json={}).status_code == 422
        wrong = client.get(f"{run}/stream", headers=mine, params={"cursor": "AAAA"})
        assert (wrong.status_code, wrong.json()["field"]) == (400, "cursor")
        text = client.get(f"{run}/stream", headers=mine, params={"camera_ids": "a"}).text
        *lines, last = [json.loads(line) for line in text.splitlines()]
        assert [line["crop"]["crop"]["crop_id"] for line in lines] == ids[::2]
        assert [base64.b64decode(line["crop"]["image"]) for line in lines] == images[::2]
        assert last["summary"]["sent_crops"] == 3
        report = {"figures": {"x": [1, None]}, "new_crop_ids": ids, "replay_crop_ids": []}
        assert client.post(f"{run}/report", headers=mine, json=report).json()["new_crops"] == 5

        archive = archive_of(make_bundle(tmp_path / "other", height=24), tmp_path)
        form = {
            "sha256": hashlib.sha256(archive).hexdigest(),
            "run_id": started["run"]["run_id"],
            "lease_token": started["lease_token"],
            "gate": json.dumps({"outcome": "passed", "score": 0.5, "report": {"y": 2}}),
        }
        bad = client.post("/models", files={"bundle": archive}, data={**form, "gate": "[]"})
        assert (bad.status_code, bad.json()["field"]) == (400, "gate")
        made = client.post("/models", files={"bundle": archive}, data=form)
        assert made.status_code == 201, made.text
        model = client.get(f"/models/{made.json()['model_version']}").json()
        assert model["manifest"]["modelVersion"] == model["model_version"]
        assert model["gate"]["report"] == {"y": 2}
        listed = client.get("/models").json()["models"]
        assert [item["state"] for item in listed] == ["candidate", "live"]
        done = client.post(f"{run}/finish", headers=mine, json={"state": "succeeded"}).json()
        assert (done["state"], done["lease_expire_time"]) == ("succeeded", None)
        assert client.get(run).json()["figures"] == {"x": [1, None]}
        assert client.get("/adaptation-runs").json()["runs"][0]["state"] == "succeeded"
        crops = client.get(f"{run}/crops", params={"page_size": 2}).json()
        assert len(crops["crops"]) == 2
        assert crops["next_page_token"]


def test_a_bundle_may_be_longer_than_an_image_and_nothing_else(
    start_service: Any, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    environment = {"RESIGHT_LIMITS__MAX_IMAGE_BYTES": "1024"}
    with start_service(tmp_path / "data", **environment) as service:
        url = f"http://{service.rest}/v1/galleries/default"
        archive = archive_of(
            make_bundle(tmp_path / "other", card="# Long\n" + "x" * 400_000), tmp_path
        )
        form = {"sha256": hashlib.sha256(archive).hexdigest()}
        assert httpx.post(f"{url}/models", files={"bundle": archive}, data=form).status_code == 201
        assert httpx.post(f"{url}/embed", files={"image": archive}).status_code == 413
