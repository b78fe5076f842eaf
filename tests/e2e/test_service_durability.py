"""`resight gallery`: a running service verified and backed up, and what was restored, served."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from resight.client.connection import connect
from resight.errors import FailedPrecondition, NotFound, ResightError
from resight.v1 import gallery_service_pb2 as messages
from resight.v1.types_pb2 import Camera, Crop
from service.commands.gallery import app


def gallery(*arguments: object, code: int = 0) -> Any:
    """Run `resight gallery ... --json`; the error when it raised one."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if isinstance(done.exception, ResightError):
        return done.exception
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def stored(target: str, make_jpeg: Callable[..., bytes], count: int) -> list[str]:
    with connect(target) as connection:
        for name in ("c1", "c2"):
            connection.gallery.CreateCamera(
                messages.CreateCameraRequest(camera=Camera(camera_id=name))
            )
        items = []
        for number in range(count):
            time = Timestamp()
            time.FromDatetime(datetime(2026, 4, 1, tzinfo=UTC) + timedelta(seconds=number))
            crop = Crop(camera_id=f"c{1 + number % 2}", capture_time=time)
            items.append(
                messages.IngestCropsRequest(
                    sequence=number, crop=crop, image=make_jpeg(4000 + number)
                )
            )
        answers = list(connection.gallery.IngestCrops(iter(items)))
    assert {answer.outcome for answer in answers} == {messages.IngestCropsResponse.OUTCOME_ACCEPTED}
    return [answer.crop_id for answer in sorted(answers, key=lambda answer: answer.sequence)]


def environment(monkeypatch: pytest.MonkeyPatch, catalog: dict[str, str]) -> None:
    for name, value in catalog.items():
        monkeypatch.setenv(name, value)


def test_verify_snapshot_restore_serve(
    start_service: Callable[..., Any],
    catalog: dict[str, str],
    make_jpeg: Callable[..., bytes],
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, ledger = tmp_path / "data", {"RESIGHT_ERASURES_DIR": str(tmp_path / "erasures")}
    with start_service(data, **catalog, **ledger) as service:
        ids = stored(service.grpc, make_jpeg, 12)
        assert gallery("stats", "--target", service.grpc)["crops"] == 12
        sound = gallery("verify", "--target", service.grpc, "--all-images")
        (report,) = sound["galleries"]
        assert sound["sound"]
        assert (report["crops"], report["rows"], report["images_read"]) == (12, 12, 12)

        with monkeypatch.context() as patch:
            environment(patch, catalog)
            assert isinstance(gallery("verify", "--data", data), FailedPrecondition)
            taken = gallery(
                "snapshot", "--output", tmp_path / "s.tar", "--data", data, "--images",
                "--bundle", tiny_bundle,
            )  # fmt: skip
        assert (taken["tables"]["crops"], taken["images"]["stored"]) == (12, 12)
        with connect(service.grpc) as connection:
            connection.gallery.DeleteCrop(messages.DeleteCropRequest(crop_id=ids[4]))

        image = next(path for path in (data / "blobs" / "default").rglob("*") if path.is_file())
        whole = image.read_bytes()
        image.write_bytes(whole[:-1])
        wrong = gallery("verify", "--target", service.grpc, "--all-images", code=1)
        assert not wrong["sound"]
        ((finding,),) = (each["findings"] for each in wrong["galleries"])
        assert (finding["kind"], finding["count"]) == ("IMAGE_DAMAGED", 1)
        over_rest = httpx.post(
            f"http://{service.rest}/v1/galleries/default/verify", json={"all_images": True}
        )
        assert over_rest.status_code == 200
        told = over_rest.json()
        assert told.pop("images_read") == 11
        assert [each["kind"] for each in told["findings"]] == ["IMAGE_DAMAGED"]
        image.write_bytes(whole)
        refused = httpx.post(
            f"http://{service.rest}/v1/galleries/default/verify",
            json={"all_images": True, "sample": 3},
        )
        assert refused.status_code == 400
        assert isinstance(
            gallery("verify", "--target", service.grpc, "--gallery", "nowhere"), NotFound
        )

    # On SQLite beside the old data; on PostgreSQL the restore goes to SQLite.
    for name, value in ledger.items():
        monkeypatch.setenv(name, value)
    restored = gallery("restore", tmp_path / "s.tar", "--data", tmp_path / "there")
    assert (restored["erased"], restored["images"]) == (1, 11)
    with start_service(tmp_path / "there", **ledger) as service:
        assert service.crops == 11
        assert gallery("verify", "--target", service.grpc, "--all-images")["sound"]
        with connect(service.grpc) as connection:
            listed = connection.gallery.ListCrops(messages.ListCropsRequest())
        assert {crop.crop_id for crop in listed.crops} == set(ids) - {ids[4]}
    after = gallery("verify", "--data", tmp_path / "there", "--all-images")
    assert after["sound"]
    assert after["galleries"][0]["rows"] == 11
    assert (tmp_path / "there" / "bundle.tar").is_file()
