"""Leases, crop streams and candidates against real processes that race, die and restart."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from resight.bundle import open_bundle, pack
from resight.client.connection import Connection, connect
from resight.v1 import adaptation_service_pb2 as pb
from resight.v1 import model_service_pb2 as models_pb
from resight.v1.gallery_service_pb2 import CreateCameraRequest, IngestCropsRequest
from resight.v1.types_pb2 import Camera, Crop

CLIENT = Path(__file__).parent / "lease_client.py"
State = pb.AdaptationRun.State
# Of the tests that share a service.
ON_BOTH = pytest.mark.parametrize("service", ["sqlite", "postgresql"], indirect=True)


def fill(connection: Connection, images: list[bytes], gallery: str = "") -> list[str]:
    """Crops of two cameras; their ids in the order of their storing."""
    for camera in ("a", "b"):
        connection.gallery.CreateCamera(
            CreateCameraRequest(gallery=gallery, camera=Camera(camera_id=camera))
        )
    ids = []
    for number, image in enumerate(images):
        crop = Crop(
            camera_id="ab"[number % 2], capture_time=Timestamp(seconds=1_767_225_600 + number)
        )
        item = IngestCropsRequest(gallery=gallery, sequence=number, crop=crop, image=image)
        (answer,) = connection.gallery.IngestCrops(iter([item]))
        ids.append(answer.crop_id)
    return ids


def start(connection: Connection, gallery: str = "", seconds: float = 60, holder: str = "test"):
    lease = Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
    request = pb.StartAdaptationRunRequest(gallery=gallery, holder=holder, lease_duration=lease)
    return connection.adaptation.StartAdaptationRun(request)


def held(started: Any, gallery: str = "") -> dict[str, str]:
    return {
        "gallery": gallery,
        "run_id": started.run.run_id,
        "lease_token": started.lease_token,
    }


def reason(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


@contextmanager
def refused(code: grpc.StatusCode, why: str) -> Iterator[None]:
    """The call inside is refused in just this way."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert (caught.value.code(), reason(caught.value)) == (code, why)


@contextmanager
def client_process(service: Any, gallery: str, holder: str, seconds: float) -> Iterator[Any]:
    process = subprocess.Popen(
        [sys.executable, str(CLIENT), service.grpc, gallery, holder, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def told(process: Any) -> list[str]:
    return process.stdout.readline().split()


@pytest.fixture
def connection(service: Any) -> Iterator[Connection]:
    with connect(service.grpc) as connection:
        yield connection


def archive_of(bundle: Path, folder: Path) -> bytes:
    path = folder / "bundle.tar"
    pack(bundle, path)
    return path.read_bytes()


def uploaded(archive: bytes, piece: int = 700, **announced: Any) -> Iterator[Any]:
    told = {"sha256": hashlib.sha256(archive).digest(), "size_bytes": len(archive)}
    yield models_pb.RegisterModelRequest(upload=models_pb.ModelUpload(**(told | announced)))
    for begin in range(0, len(archive), piece):
        yield models_pb.RegisterModelRequest(chunk=archive[begin : begin + piece])


@ON_BOTH
def test_one_of_many_threads_and_two_processes_wins(
    service: Any, connection: Connection, make_jpeg: Callable[..., bytes]
) -> None:
    fill(connection, [], "race")
    barrier = threading.Barrier(17)

    def attempt(number: int) -> str:
        barrier.wait()
        try:
            return start(connection, "race", holder=f"thread {number}").run.run_id
        except grpc.RpcError as error:
            return reason(error)

    with (
        client_process(service, "race", "process-1", 60) as one,
        client_process(service, "race", "process-2", 60) as two,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = [pool.submit(attempt, number) for number in range(16)]
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        barrier.wait()
        threads = [answer.result() for answer in answers]
        others = [told(one), told(two)]
    won = [answer for answer in threads if answer != "LEASE_HELD"]
    assert len(threads) - len(won) >= 15
    won += [words[1] for words in others if words[0] == "won"]
    assert [words for words in others if words[0] != "won"] == [
        ["refused", "FAILED_PRECONDITION"]
    ] * sum(words[0] != "won" for words in others)
    assert len(won) == 1
    runs = connection.adaptation.ListAdaptationRuns(pb.ListAdaptationRunsRequest(gallery="race"))
    assert [run.run_id for run in runs.runs] == won


@ON_BOTH
def test_a_killed_client_blocks_the_next_until_its_lease_expires(
    service: Any, connection: Connection
) -> None:
    fill(connection, [], "killed")
    with client_process(service, "killed", "doomed", 5.0) as doomed:
        doomed.stdin.write("go\n")
        doomed.stdin.flush()
        _, run_id, token = told(doomed)
        doomed.send_signal(signal.SIGKILL)
        doomed.wait(120)
    with pytest.raises(grpc.RpcError, match="doomed holds the lease"):
        start(connection, "killed")
    started = once_free(connection, "killed", patience=120)
    old = pb.GetAdaptationRunRequest(gallery="killed", run_id=run_id)
    run = connection.adaptation.GetAdaptationRun(old).run
    assert run.state == State.STATE_ABANDONED
    taken = run.end_time.ToMicroseconds() - run.start_time.ToMicroseconds()
    assert taken >= 5_000_000, "no sooner than the lease said"
    assert started.run.start_time == run.end_time
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST"):
        connection.adaptation.HeartbeatAdaptationRun(
            pb.HeartbeatAdaptationRunRequest(gallery="killed", run_id=run_id, lease_token=token)
        )


def once_free(connection: Connection, gallery: str, *, patience: float) -> Any:
    """The run started as soon as the lease is free; any other refusal is an error."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            return start(connection, gallery)
        except grpc.RpcError as error:
            if reason(error) != "LEASE_HELD":
                raise
        time.sleep(0.05)
    raise AssertionError("the lease never expired")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill-9", "drain"])
def test_a_restart_in_the_middle_loses_and_repeats_no_crop(
    start_service: Any,
    catalog: dict[str, str],
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
    how: int,
) -> None:
    # Larger than what the transport buffers, so that the stream is still going when it is cut.
    images = [make_jpeg(number) + bytes(200_000) for number in range(60)]
    received: list[Any] = []
    with (
        start_service(tmp_path / "data", **catalog) as service,
        connect(service.grpc) as connection,
    ):
        ids = fill(connection, images)
        started = start(connection)
        stream = connection.adaptation.StreamAdaptationCrops(
            pb.StreamAdaptationCropsRequest(**held(started))
        )
        with pytest.raises(grpc.RpcError) as caught:
            cut_after(7, stream, received, lambda: service.process.send_signal(how))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert service.process.wait(120) == (-9 if how == signal.SIGKILL else 0)
    assert 7 <= len(received) < len(images)
    with (
        start_service(tmp_path / "data", **catalog) as service,
        connect(service.grpc) as connection,
    ):
        with pytest.raises(grpc.RpcError, match="test holds the lease"):
            start(connection)
        beat = pb.HeartbeatAdaptationRunRequest(**held(started))
        assert connection.adaptation.HeartbeatAdaptationRun(beat).run.state == State.STATE_RUNNING
        *rest, last = connection.adaptation.StreamAdaptationCrops(
            pb.StreamAdaptationCropsRequest(**held(started), cursor=received[-1].cursor)
        )
        received += [item.crop for item in rest]
        assert [item.crop.crop_id for item in received] == ids
        assert last.summary.sent_crops == len(rest)
        assert [item.crop.image for item in rest] == images[-len(rest) :]


def cut_after(count: int, stream: Any, received: list[Any], cut: Callable[[], None]) -> None:
    for item in stream:
        assert item.WhichOneof("item") == "crop", "the stream ended before it was cut"
        received.append(item.crop)
        if len(received) == count:
            cut()
        if len(received) > count:
            time.sleep(0.05)


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
    assert 0 < started.heartbeat_interval.ToMilliseconds() < 30_000
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
        answer = client.post("/adaptation-runs", json={"holder": "rest", "lease_seconds": 30})
        assert answer.status_code == 201
        started = answer.json()
        assert started["heartbeat_interval_seconds"] == 10
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
