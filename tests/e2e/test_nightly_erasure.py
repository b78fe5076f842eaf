"""Erased while a night trains, and after it: no byte of the crop is left where nights are kept."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from resight.client.connection import connect
from resight.v1 import admin_service_pb2 as admin
from resight.v1 import gallery_service_pb2 as gallery
from tests.e2e.test_nightly import CAUTIOUS, Place, place, site  # noqa: F401


def erase(place: Place, ids: list[str]) -> dict[str, Any]:  # noqa: F811
    with connect(place.service.grpc) as connection:
        subject = admin.ErasureSubject(crops=admin.CropList(crop_ids=ids))
        made = connection.admin.CreateErasure(
            admin.CreateErasureRequest(subject=subject, reason="case 2")
        ).erasure
        done = connection.admin.ConfirmErasure(
            admin.ConfirmErasureRequest(erasure_id=made.erasure_id, crops=len(ids))
        ).erasure
    told: dict[str, Any] = json.loads(done.receipt)["receipt"]
    return told


def images(place: Place) -> dict[str, bytes]:  # noqa: F811
    with connect(place.service.grpc) as connection:
        page = connection.gallery.ListCrops(gallery.ListCropsRequest(page_size=1000))
        found = {}
        for crop in page.crops[:4]:
            request = gallery.GetCropRequest(crop_id=crop.crop_id, include_image=True)
            found[crop.crop_id] = connection.gallery.GetCrop(request).image
    return found


def holders(folder: Path, image: bytes) -> list[Path]:
    """Files with some stretch of the image in them."""
    parts = [image[start : start + 32] for start in (len(image) // 3, len(image) // 2)]
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(part in path.read_bytes() for part in parts)
    ]


def ended(night: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = night.communicate(timeout=280)
    assert out, err
    answer: dict[str, Any] = json.loads(out)
    return answer


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_night_lets_go_of_what_is_erased(place: Place) -> None:  # noqa: F811
    known = images(place)
    first, second = list(known)[:2]
    night = place.night("--epochs", 1, "--report", "--set", "seed=1", *CAUTIOUS)
    place.until_it_trains(night)
    # It stands still meanwhile, else it may be over before.
    night.send_signal(signal.SIGSTOP)
    try:
        assert holders(place.state, known[first]), "this night does not use it"
        told = erase(place, [first])
    finally:
        night.send_signal(signal.SIGCONT)
    assert [run["state"] for run in told["training"]["under_way"]] == ["running"]
    outcome = ended(night)
    assert outcome["crops"]["erased"] == 1
    assert not holders(place.state, known[first])
    assert (place.state / "report.html").exists()
    assert first not in (place.state / "report.crops").read_text()
    assert second in (place.state / "report.crops").read_text()

    told = erase(place, [second])
    (run,) = told["training"]["runs"]
    assert (run["run_id"], run["new_crops"], run["replay_crops"]) == (outcome["run_id"], 1, 0)
    assert {line["model_version"] for line in told["training"]["models"]} == (
        {outcome["model_version"]} - {""}
    )
    idle = ended(place.night("--min-crops", 10_000))
    assert idle["reason"] == "TOO_FEW_CROPS"
    assert not (place.state / "report.html").exists()
    assert {path.name for path in place.state.iterdir()} <= {
        ".lock", "night.json", "candidate.tar", "baseline.tar",
    }  # fmt: skip
