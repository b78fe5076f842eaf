"""A model's life on a real service: over gRPC, REST and the command line, and after kill -9."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from resight.bundle import open_bundle
from resight.client.connection import Connection, connect
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import model_service_pb2 as models
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Camera, Crop
from tests.conftest import PostgresqlServer
from tests.e2e import forked

QUICK = {"RESIGHT_MODELS__POLL_SECONDS": "0.05", "RESIGHT_MODELS__FILL_BLOCK": "8"}


def fill_gallery(connection: Connection, images: dict[int, bytes]) -> dict[str, int]:
    """Store the images; their numbers by crop."""
    connection.gallery.CreateCamera(gallery.CreateCameraRequest(camera=Camera(camera_id="door")))

    def items() -> Iterator[gallery.IngestCropsRequest]:
        for number, image in images.items():
            when = Timestamp(seconds=1_767_225_600 + number)
            crop = Crop(camera_id="door", capture_time=when)
            yield gallery.IngestCropsRequest(sequence=number, image=image, crop=crop)

    answers = list(connection.gallery.IngestCrops(items()))
    accepted = gallery.IngestCropsResponse.OUTCOME_ACCEPTED
    assert [answer.outcome for answer in answers] == [accepted] * len(images)
    return {answer.crop_id: answer.sequence for answer in answers}


def register(connection: Connection, archive: Path, *, passed: bool = True) -> str:
    """A candidate; its version."""
    data = archive.read_bytes()
    outcome = models.GateVerdict.OUTCOME_PASSED if passed else 0
    upload = models.ModelUpload(
        sha256=hashlib.sha256(data).digest(),
        size_bytes=len(data),
        gate=models.GateVerdict(outcome=outcome, score=0.5),
    )
    parts = [models.RegisterModelRequest(upload=upload)]
    parts.append(models.RegisterModelRequest(chunk=data))
    return connection.models.RegisterModel(iter(parts)).model.model_version


def filled(connection: Connection, version: str, seconds: float = 120.0) -> models.Filling:
    """Wait until the shadow is filled."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = connection.models.GetModel(models.GetModelRequest(model_version=version)).filling
        if found.state == models.Filling.STATE_COMPLETE:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not filled in {seconds} s: {found}")


def finds_all(connection: Connection, images: dict[int, bytes], version: str) -> None:
    """Every image finds its own crop, under this version."""
    for image in images.values():
        answer = connection.search.Search(search.SearchRequest(image=image, top_k=1))
        assert answer.model_version == version
        assert answer.matches[0].score > 0.999


def test_a_model_is_staged_promoted_and_rolled_back_on_the_command_line(
    start_service: Any,
    catalog: dict[str, str],
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
    make_bundle: Callable[..., Path],
) -> None:
    archive = make_bundle(tmp_path / "next.tar")
    wanted = open_bundle(archive).model_version
    images = {number: make_jpeg(number) for number in range(40)}

    with start_service(tmp_path / "data", **catalog, **QUICK) as service:

        def resight(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = ["models", *arguments, "--target", service.grpc]
            return forked.completed(command, os.environ, timeout=120)

        def told(*arguments: str) -> dict[str, Any]:
            done = resight(*arguments, "--json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        with connect(service.grpc) as connection:
            fill_gallery(connection, images)
            version = register(connection, archive)
            assert version == wanted
            early = resight("promote", version)
            assert early.returncode == 1
            assert "is candidate" in early.stderr
            assert told("stage", version)["model"]["state"] == "shadow"
            assert filled(connection, version).done_crops == 40
            shown = told("show", version)
            assert shown["filling"]["done_crops"] == 40
            done = told("promote", version)
            assert (done["vectors"], done["previous_version"]) == (40, service.model)
            assert done["sampled_crops"] > 0
            finds_all(connection, images, version)
            states = {m["model_version"]: m["state"] for m in told("list")["models"]}
            assert states == {version: "live", service.model: "previous"}
            leave = ("rollback", "--leaving", version, "--reason", "try")
            assert told(*leave)["model"]["model_version"] == service.model
            twice = resight(*leave)
            assert twice.returncode == 1, "sent again it does not bring the model back"
            assert "answers, not" in twice.stderr
            finds_all(connection, images, service.model)
            assert told("retire", version)["model"]["state"] == "retired"
            assert resight("rollback").returncode == 1


def test_a_bundle_is_registered_on_the_command_line(
    start_service: Any, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    archive = make_bundle(tmp_path / "next.tar")
    folder = tmp_path / "next"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    wanted = open_bundle(archive).model_version
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.onnx").write_bytes(b"other")

    with start_service(tmp_path / "data", **QUICK) as service:

        def registered(
            bundle: Path, *arguments: str, expected: int = 0
        ) -> subprocess.CompletedProcess[str]:
            command = ["models", "register", str(bundle), "--target", service.grpc, *arguments]
            done = forked.completed(command, os.environ, timeout=120)
            assert done.returncode == expected, done.stderr
            return done

        def sent() -> models.Model:
            wants = models.GetModelRequest(model_version=wanted)
            return connection.models.GetModel(wants).model

        with connect(service.grpc) as connection:
            assert registered(archive).stdout.strip() == f"{wanted} is a candidate"
            assert sent().bundle_sha256 == hashlib.sha256(archive.read_bytes()).digest()
            packed = json.loads(registered(folder, "--json").stdout)["model"]
            assert (packed["model_version"], packed["state"]) == (wanted, "candidate")
            assert packed["bundle_sha256"] == sent().bundle_sha256.hex()
            assert packed["bundle_size_bytes"] > 0
            assert packed["gate"] == "unknown"
            assert not packed["run_id"]
            connection.models.StageModel(models.StageModelRequest(model_version=wanted))
            assert "is shadow in this gallery already" in registered(folder, expected=1).stderr
            assert "model.onnx" in registered(broken, expected=1).stderr
            assert "manifest.json" in registered(tmp_path, expected=1).stderr
            assert "nothing at" in registered(tmp_path / "no.tar", expected=1).stderr
            assert "'elsewhere'" in registered(folder, "--gallery", "elsewhere", expected=1).stderr
            assert sent().state == models.Model.STATE_SHADOW


def test_rest_says_the_same(
    start_service: Any,
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
    make_bundle: Callable[..., Path],
) -> None:
    archive = make_bundle(tmp_path / "next.tar")
    with (
        start_service(tmp_path / "data", **QUICK) as service,
        connect(service.grpc) as connection,
        httpx.Client(base_url=f"http://{service.rest}/v1/galleries/default/models") as client,
    ):
        fill_gallery(connection, {number: make_jpeg(number) for number in range(10)})
        version = register(connection, archive)
        assert client.post(f"/{version}/stage", json={"x": 1}).status_code == 422
        assert client.post("/nothing/stage", json={}).status_code == 404
        staged = client.post(f"/{version}/stage", json={"reason": "tonight"}).json()
        assert staged["model"]["state"] == "shadow"
        filled(connection, version)
        shown = client.get(f"/{version}").json()
        assert (shown["filling"]["state"], shown["filling"]["done_crops"]) == ("complete", 10)
        refused = client.post(f"/{version}/filling/pause")
        assert refused.status_code == 409
        assert refused.json()["reason"] == "NO_FILLING"
        promoted = client.post(f"/{version}/promote", json={}).json()
        assert (promoted["model"]["state"], promoted["vectors"]) == ("live", 10)
        again = client.post(f"/{version}/promote", json={})
        assert again.json()["reason"] == "MODEL_STATE"
        other = client.post("/rollback", json={"model_version": service.model})
        assert other.json()["reason"] == "MODEL_STATE"
        back = client.post("/rollback", json={"model_version": version}).json()
        assert back["model"]["model_version"] == service.model
        assert client.post(f"/{version}/retire", json={}).json()["state"] == "retired"


def test_kill_9_in_the_middle_of_filling_and_around_promotion(
    start_service: Any,
    catalog: dict[str, str],
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
    make_bundle: Callable[..., Path],
) -> None:
    archive = make_bundle(tmp_path / "next.tar")
    images = {number: make_jpeg(number) for number in range(120)}
    places = catalog | QUICK | {"RESIGHT_MODELS__FILL_LEASE_SECONDS": "1"}
    # So that somebody who looks now and then comes in the middle.
    slow = places | {"RESIGHT_MODELS__FILL_SHARE": "0.01"}
    with start_service(tmp_path / "data", **slow) as service:
        with connect(service.grpc) as connection:
            fill_gallery(connection, images)
            version = register(connection, archive)
            connection.models.StageModel(models.StageModelRequest(model_version=version))
            wanted = models.GetModelRequest(model_version=version)
            while not (found := connection.models.GetModel(wanted).filling).done_crops:
                time.sleep(0.02)
        service.stop(signal.SIGKILL)
    assert 0 < found.done_crops < len(images), "killed in the middle"
    first = service.model
    with start_service(tmp_path / "data", **places) as service:
        with connect(service.grpc) as connection:
            done = filled(connection, version)
            assert (done.done_crops, done.failed_crops) == (len(images), 0)
            finds_all(connection, dict(list(images.items())[:5]), first)
            ended = connection.models.PromoteModel.future(
                models.PromoteModelRequest(model_version=version)
            )
            time.sleep(0.05)
        service.stop(signal.SIGKILL)
        ended.cancel()
    with start_service(tmp_path / "data", **places) as service, connect(service.grpc) as connection:
        listed = connection.models.ListModels(models.ListModelsRequest()).models
        states = {model.model_version: model.state for model in listed}
        live = next(v for v, state in states.items() if state == models.Model.STATE_LIVE)
        finds_all(connection, images, live)
        if live == first:
            assert states[version] == models.Model.STATE_SHADOW
            connection.models.PromoteModel(models.PromoteModelRequest(model_version=version))
        else:
            assert states[first] == models.Model.STATE_PREVIOUS
        service.stop(signal.SIGKILL)
    with start_service(tmp_path / "data", **places) as service, connect(service.grpc) as connection:
        finds_all(connection, images, version)
        with pytest.raises(grpc.RpcError) as caught:
            connection.models.PromoteModel(models.PromoteModelRequest(model_version=version))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_another_replica_goes_on_filling(
    start_service: Any,
    postgresql_server: PostgresqlServer,
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
    make_bundle: Callable[..., Path],
) -> None:
    archive = make_bundle(tmp_path / "next.tar")
    images = {number: make_jpeg(number) for number in range(100)}
    with postgresql_server.database() as url, ExitStack() as stack:
        places = QUICK | {
            "RESIGHT_DATABASE_URL": url,
            "RESIGHT_BLOB_URL": f"file://{tmp_path}/blobs",
            "RESIGHT_ERASURES_DIR": f"{tmp_path}/erasures",
            "RESIGHT_MODELS__FILL_SHARE": "0.03",
            "RESIGHT_MODELS__FILL_LEASE_SECONDS": "1",
        }
        upgraded = forked.completed(["db", "upgrade"], os.environ | places, timeout=120)
        assert upgraded.returncode == 0, upgraded.stderr
        a, b = (
            stack.enter_context(start_service(tmp_path / name, **places)) for name in ("a", "b")
        )
        other = stack.enter_context(connect(b.grpc))
        with connect(a.grpc) as connection:
            fill_gallery(connection, images)
            version = register(connection, archive)
            connection.models.StageModel(models.StageModelRequest(model_version=version))
            wanted = models.GetModelRequest(model_version=version)
            while not (found := other.models.GetModel(wanted).filling).done_crops:
                time.sleep(0.02)
        a.stop(signal.SIGKILL)
        assert 0 < found.done_crops < len(images), "killed in the middle"
        done = filled(other, version)
        assert (done.done_crops, done.failed_crops) == (len(images), 0)
        promoted = other.models.PromoteModel(models.PromoteModelRequest(model_version=version))
        assert promoted.vectors == len(images)
        finds_all(other, images, version)
