"""Erasure and retention of a camera, over gRPC, REST and the command line of a real service."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image

from resight.client.connection import Connection, connect
from resight.client.faults import translated
from resight.errors import FailedPrecondition, InvalidArgument
from resight.v1 import admin_service_pb2 as admin
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Camera, Crop
from tests.e2e import forked
from tests.e2e.conftest import ServiceProcess

NAMES = count()
START = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def filled(service: ServiceProcess, make_jpeg: Callable[..., bytes]) -> Any:
    """A gallery of two cameras and twelve crops: its name, connection, and their ids."""
    name = f"erase-{next(NAMES)}"
    with connect(service.grpc) as connection:
        for camera in ("door", "yard"):
            connection.gallery.CreateCamera(
                gallery.CreateCameraRequest(gallery=name, camera=Camera(camera_id=camera))
            )

        def requests() -> Any:
            for number in range(12):
                time = Timestamp()
                time.FromDatetime(START + timedelta(minutes=number))
                crop = Crop(
                    camera_id="door" if number % 2 else "yard",
                    capture_time=time,
                    track_id=f"t{number // 3}",
                )
                yield gallery.IngestCropsRequest(
                    gallery=name, sequence=number, crop=crop, image=make_jpeg(number)
                )

        answers = sorted(
            connection.gallery.IngestCrops(requests()), key=lambda answer: answer.sequence
        )
        yield name, connection, [answer.crop_id for answer in answers]


def stored(connection: Connection, name: str) -> set[str]:
    page = connection.gallery.ListCrops(gallery.ListCropsRequest(gallery=name, page_size=1000))
    return {crop.crop_id for crop in page.crops}


def resight(service: ServiceProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.completed([*arguments, "--target", service.grpc], os.environ, timeout=120)


def test_over_grpc(filled: Any, make_jpeg: Callable[..., bytes]) -> None:
    name, connection, ids = filled
    subject = admin.ErasureSubject(
        likeness=admin.LikenessSubject(image=make_jpeg(4), min_score=0.999)
    )
    made = connection.admin.CreateErasure(
        admin.CreateErasureRequest(gallery=name, subject=subject, reason="case 9")
    ).erasure
    assert (made.crops, made.state) == (1, admin.Erasure.STATE_PLANNED)
    about = {"gallery": name, "erasure_id": made.erasure_id}
    (item,) = connection.admin.ListErasureCrops(admin.ListErasureCropsRequest(**about)).crops
    assert (item.crop.crop_id, item.crop.camera_id) == (ids[4], "yard")
    assert item.score == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(FailedPrecondition), translated():
        connection.admin.ConfirmErasure(admin.ConfirmErasureRequest(**about, crops=2))
    done = connection.admin.ConfirmErasure(admin.ConfirmErasureRequest(**about, crops=1)).erasure
    assert (done.state, done.removed) == (admin.Erasure.STATE_DONE, 1)
    assert stored(connection, name) == {*ids} - {ids[4]}
    (item,) = connection.admin.ListErasureCrops(admin.ListErasureCropsRequest(**about)).crops
    assert item.outcome == admin.ErasureCrop.OUTCOME_REMOVED
    assert item.crop == Crop(crop_id=ids[4])
    found = connection.search.Search(
        search.SearchRequest(gallery=name, image=make_jpeg(4), top_k=100)
    )
    assert ids[4] not in {match.crop.crop_id for match in found.matches}
    with pytest.raises(InvalidArgument, match="subject is missing"), translated():
        connection.admin.CreateErasure(admin.CreateErasureRequest(gallery=name, reason="x"))
    with pytest.raises(InvalidArgument, match="not a UUID"), translated():
        connection.admin.GetErasure(admin.GetErasureRequest(gallery=name, erasure_id="x"))


def test_over_rest(service: ServiceProcess, filled: Any) -> None:
    name, connection, ids = filled
    with httpx.Client(base_url=f"http://{service.rest}/v1/galleries/{name}") as rest:
        made = rest.post(
            "/erasures", json={"subject": {"track": {"track_id": "t1"}}, "reason": "case 9"}
        )
        assert made.status_code == 201, made.text
        body = made.json()
        assert (body["state"], body["crops"]) == ("planned", 3)
        url = f"/erasures/{body['erasure_id']}"
        listed = rest.get(f"{url}/crops", params={"page_size": 2}).json()
        token = listed["next_page_token"]
        rest_of_it = rest.get(f"{url}/crops", params={"page_token": token}).json()
        crops = [item["crop_id"] for item in listed["crops"] + rest_of_it["crops"]]
        assert crops == ids[3:6]
        wrong = rest.post(f"{url}/confirm", json={"crops": 1})
        assert (wrong.status_code, wrong.json()["reason"]) == (409, "ERASURE_COUNT_DIFFERS")
        done = rest.post(f"{url}/confirm", json={"crops": 2, "keep_crop_ids": [ids[4]]}).json()
        assert (done["state"], done["removed"], done["kept"]) == ("done", 2, 1)
        told = json.loads(done["receipt"])["receipt"]
        assert told["crops"]["removed"]["ids"] == sorted([ids[3], ids[5]])
        assert rest.get(url).json()["receipt"] == done["receipt"]
        assert [each["state"] for each in rest.get("/erasures").json()["erasures"]] == ["done"]
        for wrong_subject in ({}, {"camera_id": "door", "crop_ids": [ids[0]]}):
            bad = rest.post("/erasures", json={"subject": wrong_subject, "reason": "x"})
            assert bad.status_code == 400, bad.text
        two = {"subject": {"camera_id": "door"}, "reason": "x"}
        other = rest.post("/erasures", json=two).json()
        assert rest.post(f"/erasures/{other['erasure_id']}/cancel").json()["state"] == "cancelled"
        kept = rest.put("/cameras/door/retention", json={"retention_days": 40_000.0})
        assert (kept.status_code, "retention_days" in kept.text) == (400, True)
        kept = rest.put("/cameras/door/retention", json={"retention_days": 30_000.0})
        assert (kept.status_code, kept.json()["retention_days"]) == (200, 30_000.0)
        assert rest.put("/cameras/no/retention", json={"retention_days": 1}).status_code == 404
    assert stored(connection, name) == {*ids} - {ids[3], ids[5]}


def test_a_sheet_that_fails_names_the_plan_that_stays(
    service: ServiceProcess, filled: Any, tmp_path: Path
) -> None:
    name, _, _ = filled
    plan = ("erase", "plan", "--gallery", name, "--camera", "door", "--reason", "x", "--json")

    def erasures() -> dict[str, str]:
        listed = resight(service, "erase", "list", "--gallery", name, "--json").stdout
        return {each["erasure_id"]: each["state"] for each in json.loads(listed)["erasures"]}

    unwritable = resight(service, *plan, "--sheet", str(tmp_path / "s.pdf"))
    assert (unwritable.returncode, ".html or .png" in unwritable.stderr) == (1, True)
    assert erasures() == {}, "refused before anything is planned"

    sheet = tmp_path / "the case" / "s.html"
    failed = resight(service, *plan, "--sheet", str(sheet))
    assert (failed.returncode, failed.stdout) == (1, "")
    ((erasure, state),) = erasures().items()
    assert state == "planned"
    assert f"erasure {erasure} is planned, 6 crops to go" in failed.stderr
    sheet.parent.mkdir()
    show, cancel = re.findall(r"resight (erase (?:show|cancel) .*)", failed.stderr)
    shown = resight(service, *shlex.split(show))
    assert shown.returncode == 0, shown.stderr
    assert sheet.read_text().count("<img ") == 6
    assert resight(service, *shlex.split(cancel)).returncode == 0
    assert erasures() == {erasure: "cancelled"}


def test_on_the_command_line(service: ServiceProcess, filled: Any, tmp_path: Path) -> None:
    name, connection, ids = filled
    sheet, picture, receipt = (tmp_path / each for each in ("s.html", "s.png", "r.json"))
    made = resight(
        service, "erase", "plan", "--gallery", name, "--camera", "door", "--reason", "case 9",
        "--start", "2026-01-05T12:00:00Z", "--end", "2026-01-05T12:06:00Z", "--sheet", str(sheet),
        "--json",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    body = json.loads(made.stdout)
    wanted = [ids[1], ids[3], ids[5]]
    assert [item["crop_id"] for item in body["list"]] == wanted
    page = sheet.read_text()
    assert page.count("<img ") == 3
    assert all(crop_id in page for crop_id in wanted)
    erasure = body["erasure_id"]
    shown = resight(service, "erase", "show", erasure, "--gallery", name, "--sheet", str(picture))
    assert f"resight erase confirm {erasure} --crops 3" in shown.stdout
    assert Image.open(picture).size[0] > 500
    unasked = resight(service, "erase", "confirm", erasure, "--gallery", name)
    assert (unasked.returncode, "--crops" in unasked.stderr) == (1, True)
    done = resight(
        service, "erase", "confirm", erasure, "--gallery", name, "--crops", "2",
        "--keep", ids[3], "--receipt", str(receipt),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 crops removed, 0 were gone before, 1 kept\n"
    assert stored(connection, name) == {*ids} - {ids[1], ids[5]}
    printed = resight(service, "erase", "receipt", erasure, "--gallery", name)
    assert json.loads(printed.stdout) == json.loads(receipt.read_text())
    listed = resight(service, "erase", "list", "--gallery", name, "--json")
    assert [each["state"] for each in json.loads(listed.stdout)["erasures"]] == ["done"]
    for wrong in (("--crop", ids[0], "--track", "t1"), ("--crop", ids[0], "--camera", "door"), ()):
        refused = resight(service, "erase", "plan", "--gallery", name, "--reason", "x", *wrong)
        assert refused.returncode == 2, refused.stdout

    kept = resight(service, "cameras", "retention", "door", "--gallery", name, "--days", "30000")
    assert kept.stdout == "crops of camera door are kept 30000 days\n"
    assert "(kept 30000 days)" in resight(service, "cameras", "list", "--gallery", name).stdout
    kept = resight(service, "cameras", "retention", "door", "--gallery", name, "--default")
    assert kept.returncode == 0
    assert "kept" not in resight(service, "cameras", "list", "--gallery", name).stdout


def test_a_receipt_is_verified_byte_by_byte(
    service: ServiceProcess, filled: Any, tmp_path: Path
) -> None:
    name, connection, ids = filled
    subject = admin.ErasureSubject(crops=admin.CropList(crop_ids=ids[:2]))
    made = connection.admin.CreateErasure(
        admin.CreateErasureRequest(gallery=name, subject=subject, reason="case 9")
    ).erasure
    done = connection.admin.ConfirmErasure(
        admin.ConfirmErasureRequest(gallery=name, erasure_id=made.erasure_id, crops=2)
    ).erasure
    file, key, other = (tmp_path / each for each in ("r.json", "key.pem", "other.pem"))
    file.write_text(done.receipt)
    key.write_text(json.loads(done.receipt)["signature"]["public_key"])
    foreign = Ed25519PrivateKey.generate().public_key()
    other.write_bytes(foreign.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def verify(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["erase", "verify-receipt", str(path), *options, "--json"]
        return forked.completed(command, os.environ, timeout=120)

    assert json.loads(verify(file).stdout)["trusted"] is False
    sound = verify(file, "--public-key", str(key))
    assert json.loads(sound.stdout)["trusted"] is True
    assert json.loads(sound.stdout)["receipt"]["crops"]["removed"]["ids"] == sorted(ids[:2])
    assert "does not hold" in verify(file, "--public-key", str(other)).stderr
    whole = json.loads(done.receipt)
    changed = {**whole, "receipt": {**whole["receipt"], "reason": "case 8"}}
    file.write_text(json.dumps(changed))
    assert verify(file).returncode == 1
    file.write_text("{}")
    assert "no erasure receipt" in verify(file).stderr
