"""Whole nights as processes: simulated crops, real service, real training, real gate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resight.bundle import open_bundle
from resight.client.connection import connect
from resight.v1 import adaptation_service_pb2 as pb
from resight.v1.model_service_pb2 import ListModelsRequest, Model

RESIGHT = [sys.executable, "-c", "from resight.cli import main; main()"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
State = pb.AdaptationRun.State
TRAINING = [
    "--preset", "fast", "--iterations", "4", "--p", "8", "--k", "4",
    "--set", "threads=1", "--set", "extraction=torch", "--set", "k1=10", "--set", "k2=3",
    "--set", "device=cpu",
]  # fmt: skip
# Steps so small that the encoder stays as good as it was, which is what the gate is to find.
CAUTIOUS = ["--set", "lr=1e-8", "--set", "freeze_bn=true"]


def resight(*arguments: object) -> dict[str, Any]:
    command = [*RESIGHT, *map(str, arguments), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | ONE_THREAD, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@dataclass
class Site:
    """Simulated crops and a live encoder that can be trained on."""

    crops: Path
    live: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    resight(
        "simulate", "--output", folder / "sim", "--identities", 40, "--cameras", 3,
        "--crops", 600, "--seed", 5,
    )  # fmt: skip
    resight(
        "adapt", "run", "--crops", folder / "sim" / "train.csv", "--output", folder / "live",
        "--epochs", 0, "--init", "random", "--backbone", "timm:test_efficientnet",
        "--height", 64, "--width", 32, "--set", "threads=1", "--set", "device=cpu",
    )  # fmt: skip
    return Site(folder / "sim", folder / "live" / "bundle")


@dataclass
class Place:
    """A service with the site's crops, and the folder its nights remember in."""

    service: Any
    site: Site
    state: Path
    metrics: Path

    def night(self, *options: object) -> subprocess.Popen[str]:
        command = [
            *RESIGHT, "adapt", "nightly", "--live", self.site.live, "--state", self.state,
            "--target", self.service.grpc, "--min-crops", 50, "--metrics-file", self.metrics,
            "--no-report", *TRAINING, *options, "--json",
        ]  # fmt: skip
        return subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD,
        )

    def until_it_trains(self, night: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 300
        while not (self.state / "work" / "run" / "run.json").exists():
            assert night.poll() is None, night.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def until_told_that_it_trains(self) -> None:
        deadline = time.monotonic() + 120
        while self.runs()[0].progress.stage != "train":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def runs(self) -> list[pb.AdaptationRun]:
        with connect(self.service.grpc) as connection:
            listed = connection.adaptation.ListAdaptationRuns(pb.ListAdaptationRunsRequest())
            return list(listed.runs)

    def models(self) -> list[Model]:
        with connect(self.service.grpc) as connection:
            return list(connection.models.ListModels(ListModelsRequest()).models)


@pytest.fixture
def place(start_serving: Callable[..., Any], site: Site, tmp_path: Path) -> Iterator[Place]:
    with start_serving(site.live, tmp_path / "data") as service:
        report = resight(
            "ingest", site.crops / "train.csv", "--register-cameras", "--target", service.grpc
        )
        assert report["accepted"] >= 300
        yield Place(service, site, tmp_path / "state", tmp_path / "night.prom")


@pytest.mark.slow
def test_a_killed_night_leaves_nothing(place: Place) -> None:
    doomed = place.night("--lease", 30, "--epochs", 1000)
    place.until_it_trains(doomed)
    place.until_told_that_it_trains()
    doomed.send_signal(signal.SIGKILL)
    doomed.communicate()
    (run,) = place.runs()
    assert run.state == State.STATE_RUNNING
    assert run.progress.stage == "train"
    assert [model.state for model in place.models()] == [Model.STATE_LIVE]
    assert {path.name for path in place.state.iterdir()} == {".lock", "work"}

    with connect(place.service.grpc) as connection, pytest.raises(Exception, match="holds the lea"):
        connection.adaptation.StartAdaptationRun(pb.StartAdaptationRunRequest(holder="early"))
    time.sleep(max(0.0, run.lease_expire_time.ToMicroseconds() / 1e6 - time.time()) + 0.1)
    idle = place.night("--min-crops", 10_000)
    out, err = idle.communicate(timeout=500)
    assert (idle.returncode, json.loads(out)["reason"]) == (0, "TOO_FEW_CROPS"), err
    after, before = place.runs()
    assert (before.state, before.reason) == (State.STATE_ABANDONED, "LEASE_EXPIRED")
    assert after.state == State.STATE_SKIPPED
    assert {path.name for path in place.state.iterdir()} == {".lock", "night.json"}
    assert 'resight_night_crops{gallery="default",kind="available"}' in place.metrics.read_text()


@pytest.mark.slow
def test_a_healthy_night_makes_a_candidate_within_its_budget(place: Place) -> None:
    night = place.night("--epochs", 1000, "--time-budget", "30s", *CAUTIOUS)
    out, err = night.communicate(timeout=500)
    assert night.returncode == 0, out + err
    told = json.loads(out)
    assert told["result"] == "succeeded"
    epochs = told["summary"]["epochs"]
    assert 1 <= len(epochs) < 1000
    assert any(line.startswith("stopped after epoch") for line in told["summary"]["warnings"])
    assert told["crops"]["new"] == told["crops"]["available"] >= 300

    candidate, live = place.models()
    assert (candidate.state, live.state) == (Model.STATE_CANDIDATE, Model.STATE_LIVE)
    assert candidate.model_version == told["model_version"]
    assert candidate.parent_version == live.model_version
    kept = open_bundle(place.state / "candidate.tar")
    assert kept.model_version == candidate.model_version
    verdict = json.loads((kept.directory / "gate.json").read_text())
    assert verdict["passed"] is True
    assert verdict["score"] == told["gate"]["score"]
    assert not (place.state / "work").exists()
    (run,) = place.runs()
    assert (run.state, run.model_version) == (State.STATE_SUCCEEDED, candidate.model_version)
    assert run.new_crops == told["crops"]["new"]
    assert 'resight_night_result{gallery="default",result="succeeded"} 1.0' in (
        place.metrics.read_text()
    )

    idle = place.night("--epochs", 1)
    out, err = idle.communicate(timeout=500)
    assert (idle.returncode, json.loads(out)["reason"]) == (0, "TOO_FEW_CROPS"), err
    assert place.runs()[0].state == State.STATE_SKIPPED
    assert "resight_night_last_success_timestamp_seconds" in place.metrics.read_text()


@pytest.mark.slow
def test_a_night_that_makes_the_encoder_worse_leaves_nothing(place: Place) -> None:
    # A network that knew nothing learns from 300 crops that it is surer of than it may be.
    night = place.night("--epochs", 12, "--iterations", 8)
    out, err = night.communicate(timeout=500)
    assert night.returncode == 3, out + err
    told = json.loads(out)
    assert (told["result"], told["reason"]) == ("refused", "GATE_REFUSED")
    assert told["gate"]["passed"] is False
    assert told["message"] == "; ".join(told["gate"]["reasons"])
    (run,) = place.runs()
    assert (run.state, run.message) == (State.STATE_REFUSED, told["message"])
    assert [model.state for model in place.models()] == [Model.STATE_LIVE]
    assert {path.name for path in place.state.iterdir()} == {".lock", "baseline.tar", "night.json"}
    assert 'result="refused"} 1.0' in place.metrics.read_text()


@pytest.mark.slow
def test_sigterm_ends_a_night_in_words(place: Place) -> None:
    night = place.night("--lease", 600, "--epochs", 1000)
    place.until_it_trains(night)
    night.send_signal(signal.SIGTERM)
    night.communicate(timeout=120)
    assert night.returncode == 130
    (run,) = place.runs()
    assert (run.state, run.reason) == (State.STATE_FAILED, "INTERRUPTED")
    assert not run.HasField("lease_expire_time"), "the next night may begin at once"
    assert [model.state for model in place.models()] == [Model.STATE_LIVE]
    assert {path.name for path in place.state.iterdir()} == {".lock", "night.json"}
    assert 'result="failed"} 1.0' in place.metrics.read_text()


@pytest.mark.slow
def test_a_night_beside_another_says_so_and_does_nothing(place: Place) -> None:
    with connect(place.service.grpc) as connection:
        connection.adaptation.StartAdaptationRun(pb.StartAdaptationRunRequest(holder="gpu-7"))
    night = place.night("--epochs", 1)
    out, err = night.communicate(timeout=120)
    assert night.returncode == 1
    assert (json.loads(out)["result"], json.loads(out)["reason"]) == ("held", "LEASE_HELD")
    assert "gpu-7 holds the lease of this gallery until" in err
    assert "Traceback" not in err
    assert len(place.runs()) == 1
    assert 'result="held"} 1.0' in place.metrics.read_text()
