"""A night that does what it is for: it makes the encoder better, and the gate lets it through.

Simulated crops, a real service, real training, a real gate. Who is on a crop is known to the
simulator and read by the test alone, after the night.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resight.client.connection import Connection, connect
from resight.v1 import adaptation_service_pb2 as pb
from resight.v1.gallery_service_pb2 import ListCropsRequest
from resight.v1.model_service_pb2 import ListModelsRequest, Model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]

RESIGHT = [sys.executable, "-c", "from resight.cli import main; main()"]
State = pb.AdaptationRun.State
# The demo's recipe, half as long: ImageNet's features of drawn people have much to learn.
TRAINING = [
    "--preset", "fast", "--epochs", "3", "--set", "freeze_bn=true", "--set", "precision=fp32",
    "--set", "device=cpu",
]  # fmt: skip


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [*RESIGHT, *map(str, arguments), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], *codes: int) -> dict[str, Any]:
    """What it printed, once it ended with one of these codes."""
    out, err = process.communicate(timeout=1500)
    assert process.returncode in (codes or (0,)), out + err
    assert "Traceback" not in err
    answer: dict[str, Any] = json.loads(out)
    return answer


@dataclass
class Nights:
    """A site's first nights, as they were told."""

    site: Path
    live: Path
    state: Path
    connection: Connection
    improving: dict[str, Any]
    beside: dict[str, Any]
    idle: dict[str, Any]
    next: dict[str, Any]
    first_day: set[str]
    models: list[Model]

    def measured(self, bundle: Path) -> dict[str, Any]:
        """Figures of a bundle on people whom no night has seen."""
        return ended(
            start(
                "adapt", "evaluate", "--bundle", bundle, "--query", self.site / "query.csv",
                "--gallery", self.site / "gallery.csv",
            )
        )  # fmt: skip

    def run(self, told: dict[str, Any]) -> pb.AdaptationRun:
        request = pb.GetAdaptationRunRequest(run_id=told["run_id"])
        return self.connection.adaptation.GetAdaptationRun(request).run

    def used(self, told: dict[str, Any], *, replay: bool) -> set[str]:
        request = pb.ListAdaptationRunCropsRequest(run_id=told["run_id"], page_size=1000)
        crops = self.connection.adaptation.ListAdaptationRunCrops(request).crops
        return {crop.crop_id for crop in crops if crop.replay is replay}

    def stored(self) -> set[str]:
        crops = self.connection.gallery.ListCrops(ListCropsRequest(page_size=1000)).crops
        return {crop.crop_id for crop in crops}


@pytest.fixture(scope="module")
def nights(
    start_serving: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nights]:
    folder = tmp_path_factory.mktemp("improves")
    site, state, live = folder / "site", folder / "state", folder / "live" / "bundle"
    ended(
        start(
            "simulate", "--output", site, "--identities", 40, "--cameras", 4, "--crops", 800,
            "--seed", 1,
        )
    )  # fmt: skip
    ended(
        start(
            "adapt", "run", "--crops", site / "train.csv", "--output", folder / "live",
            "--epochs", 0, "--height", 128, "--width", 64, "--set", "device=cpu",
        )
    )  # fmt: skip
    days = two_days(site)
    with start_serving(live, folder / "data") as service, connect(service.grpc) as connection:

        def night(state: Path, *options: object) -> subprocess.Popen[str]:
            return start(
                "adapt", "nightly", "--live", live, "--state", state, "--target", service.grpc,
                "--min-crops", 50, "--no-report", *TRAINING, *options,
            )  # fmt: skip

        def ingest(manifest: Path) -> None:
            command = ("ingest", manifest, "--register-cameras", "--target", service.grpc)
            assert ended(start(*command))["rejected"] == 0

        ingest(days[0])
        first = night(state)
        try:
            until_it_trains(first, state)
            beside = ended(night(folder / "elsewhere"), 1)
            improving = ended(first)
        finally:
            first.kill()
            first.wait()
        listed = connection.models.ListModels(ListModelsRequest()).models
        told = Nights(site, live, state, connection, improving, beside, {}, {}, set(), list(listed))
        told.idle = ended(night(state))
        told.first_day = told.stored()
        ingest(days[1])
        # What it learns is not the point, so neither is what the gate says to it.
        told.next = ended(night(state, "--epochs", 1, "--iterations", 1), 0, 3)
        yield told


def two_days(site: Path) -> list[Path]:
    """The training crops in the order of their capture, the last sixth as a day of its own."""
    with (site / "train.csv").open(newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["capture_time"])
    cut = len(rows) * 5 // 6
    manifests = []
    for name, part in (("monday", rows[:cut]), ("tuesday", rows[cut:])):
        manifests.append(site / f"{name}.csv")
        with manifests[-1].open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(part)
    return manifests


def until_it_trains(night: subprocess.Popen[str], state: Path) -> None:
    deadline = time.monotonic() + 600
    while not (state / "work" / "run" / "run.json").exists():
        assert night.poll() is None, night.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_candidate_is_better_than_the_live_encoder(nights: Nights) -> None:
    told = nights.improving
    assert told["result"] == "succeeded"
    assert told["gate"]["passed"] is True
    assert told["gate"]["score"] > 0, "better than the live encoder, as far as the gate can tell"
    candidate, live = nights.models
    assert (candidate.state, candidate.model_version) == (
        Model.STATE_CANDIDATE,
        told["model_version"],
    )
    before, after = nights.measured(nights.live), nights.measured(nights.state / "candidate.tar")
    assert (before["model_version"], after["model_version"]) == (
        live.model_version,
        candidate.model_version,
    )
    assert after["map"] > before["map"]
    assert after["rank1"] > before["rank1"]


def test_of_two_nights_at_once_one_is_refused(nights: Nights) -> None:
    assert (nights.beside["result"], nights.beside["reason"]) == ("held", "LEASE_HELD")
    assert nights.beside["run_id"] == ""
    assert nights.run(nights.improving).state == State.STATE_SUCCEEDED


def test_the_next_night_learns_from_new_crops_alone(nights: Nights) -> None:
    assert (nights.idle["result"], nights.idle["reason"]) == ("skipped", "TOO_FEW_CROPS")
    assert nights.idle["crops"] == {"available": 0}
    assert nights.used(nights.improving, replay=False) == nights.first_day
    assert nights.used(nights.improving, replay=True) == set()
    arrived = nights.stored() - nights.first_day
    assert len(arrived) >= 50
    assert nights.next["crops"]["available"] == len(arrived)
    assert nights.used(nights.next, replay=False) == arrived
    again = nights.used(nights.next, replay=True)
    assert again < nights.first_day
    # Of the sample, those in blocks of time that the gate keeps for itself are left out.
    assert 0 < len(again) <= round(0.3 * len(arrived))
