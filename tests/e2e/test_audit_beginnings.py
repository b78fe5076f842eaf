"""What a change is about is known when it begins: of one that never ended the audit names where."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import create_engine, text

from resight.client.connection import connect
from resight.v1 import adaptation_service_pb2 as adaptation
from resight.v1 import gallery_service_pb2 as messages
from resight.v1 import model_service_pb2 as models
from resight.v1.types_pb2 import Camera, Crop
from tests.e2e.conftest import RESIGHT, catalog_of


def recorded(data: Path) -> list[dict[str, Any]]:
    engine = create_engine(f"sqlite:///{data}/catalog.sqlite")
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT body FROM audit_entries ORDER BY chain_id, sequence")
        ).all()
    engine.dispose()
    return [json.loads(row.body) for row in rows]


def events(said: list[dict[str, Any]], action: str) -> list[tuple[str, str]]:
    return [(each["event"], each["gallery"]) for each in said if each["action"] == action]


def test_a_beginning_names_its_gallery(start_service: Any, tmp_path: Path, make_jpeg: Any) -> None:
    data = tmp_path / "data"
    with start_service(data) as service:
        rest = httpx.Client(base_url=f"http://{service.rest}/v1/galleries", timeout=60)
        with connect(service.grpc) as connection, rest:
            for name in ("", "site-b"):
                camera = messages.CreateCameraRequest(gallery=name, camera=Camera(camera_id="c"))
                connection.gallery.CreateCamera(camera)
            rest.post("/site-c/cameras", json={"camera_id": "c"}).raise_for_status()
            # Of none, of one that is not there, and a message that is none.
            rest.post("/site-x/cameras", json={}).close()
            missing = messages.DeleteCropRequest(gallery="site-y", crop_id="x")
            with pytest.raises(grpc.RpcError):
                connection.gallery.DeleteCrop(missing)
            wrong = adaptation.StartAdaptationRunRequest(gallery="../etc")
            with pytest.raises(grpc.RpcError):
                connection.adaptation.StartAdaptationRun(wrong)
        assert service.stop() == 0
    said = recorded(data)
    assert events(said, "GalleryService/CreateCamera")[:6] == [
        ("began", "default"), ("ended", "default"),
        ("began", "site-b"), ("ended", "site-b"),
        ("began", "site-c"), ("ended", "site-c"),
    ]  # fmt: skip
    assert events(said, "GalleryService/DeleteCrop") == [("began", "site-y"), ("ended", "site-y")]
    # Nothing began: it stands there once.
    assert events(said, "AdaptationService/StartAdaptationRun") == [("call", "")]
    assert [each for each in said if "refused" in each] == []


def unfinished(data: Path, *options: str, **environment: str) -> list[tuple[str, str, str]]:
    """What the report says, of which gallery, and about what."""
    folder = data.with_name(f"report{len(options)}")
    subprocess.run(
        [RESIGHT, "audit", "report", "--data", data, "--csv", folder, *options],
        env=os.environ | environment, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    with (folder / "unfinished.csv").open(newline="") as file:
        return [(row["what"], row["gallery"], row["about"]) for row in csv.DictReader(file)]


def test_a_change_that_never_ended_is_told_with_its_gallery(
    start_service: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = tmp_path / "data"
    with catalog_of("postgresql", request) as environment:
        engine = create_engine(environment["RESIGHT_DATABASE_URL"])
        began = text("SELECT count(*) FROM audit_entries WHERE gallery = 'site-b'")
        with (
            start_service(data, **environment) as service,
            engine.connect() as holding,
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as looking,
            ThreadPoolExecutor(1) as threads,
        ):
            holding.execute(text("LOCK TABLE galleries, cameras IN ACCESS EXCLUSIVE MODE"))
            url = f"http://{service.rest}/v1/galleries/site-b/cameras"
            asked = threads.submit(httpx.post, url, json={"camera_id": "c"}, timeout=120)
            deadline = time.monotonic() + 120
            while not looking.execute(began).scalar_one():
                assert time.monotonic() < deadline
                assert not asked.done(), asked.result().text
                time.sleep(0.05)
            service.process.send_signal(signal.SIGKILL)
            service.process.wait(60)
            with pytest.raises(httpx.HTTPError):
                asked.result()
            holding.rollback()
        engine.dispose()
        expected = [("GalleryService/CreateCamera", "site-b", "camera_id=c")]
        assert unfinished(data, **environment) == expected
        assert unfinished(data, "--gallery", "site-b", **environment) == expected


def test_a_stream_that_was_killed_is_told_with_the_gallery_that_it_began_in(
    start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    data = tmp_path / "data"
    with start_service(data) as service, connect(service.grpc) as connection:
        camera = Camera(camera_id="c")
        connection.gallery.CreateCamera(messages.CreateCameraRequest(gallery="a", camera=camera))
        go_on, came = threading.Event(), threading.Event()

        def items() -> Iterator[messages.IngestCropsRequest]:
            taken = Timestamp(seconds=1_767_225_600)
            yield messages.IngestCropsRequest(
                gallery="a", crop=Crop(camera_id="c", capture_time=taken), image=make_jpeg(1)
            )
            go_on.wait(120)

        def stream() -> None:
            try:
                for _ in connection.gallery.IngestCrops(items()):
                    came.set()
            except grpc.RpcError:
                pass

        asking = threading.Thread(target=stream)
        asking.start()
        try:
            assert came.wait(120)
            service.process.send_signal(signal.SIGKILL)
            service.process.wait(60)
        finally:
            go_on.set()
            asking.join(120)
    began = [each for each in recorded(data) if each.get("event") == "began"]
    assert events(began, "GalleryService/IngestCrops") == [("began", "a")]
    for options in ([], ["--gallery", "a"]):
        assert unfinished(data, *options) == [("GalleryService/IngestCrops", "a", "")]
    assert unfinished(data, "--gallery", "b") == []


def test_a_stream_begins_with_its_first_message(
    start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    def item(gallery: str) -> messages.IngestCropsRequest:
        taken = Timestamp(seconds=1_767_225_600)
        crop = Crop(camera_id="c", capture_time=taken)
        return messages.IngestCropsRequest(gallery=gallery, crop=crop, image=make_jpeg(1))

    data = tmp_path / "data"
    with start_service(data) as service, connect(service.grpc) as connection:
        camera = messages.CreateCameraRequest(gallery="b", camera=Camera(camera_id="c"))
        connection.gallery.CreateCamera(camera)
        for galleries in ([], ["b"], ["none", "b"], ["../etc", "b"]):
            list(connection.gallery.IngestCrops(item(name) for name in galleries))
        for parts in ([], [{"chunk": b"x"}], [{"upload": {"gallery": "b"}}]):
            uploaded = [models.RegisterModelRequest(**part) for part in parts]
            with pytest.raises(grpc.RpcError):
                connection.models.RegisterModel(iter(uploaded))
        assert service.stop() == 0
    said = recorded(data)
    assert events(said, "GalleryService/IngestCrops") == [
        ("call", ""),
        ("began", "b"), ("ended", "b"),
        ("began", "none"), ("ended", "b"), ("ended", "none"),
        ("began", ""), ("ended", "b"), ("ended", ""),
    ]  # fmt: skip
    assert events(said, "ModelService/RegisterModel") == [
        ("call", ""), ("began", ""), ("ended", ""), ("began", "b"), ("ended", "b"),
    ]  # fmt: skip
    for options in ([], ["--gallery", "none"], ["--gallery", "b"]):
        assert unfinished(data, *options) == []
