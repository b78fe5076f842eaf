"""The chart's CronJob as a process beside the chart's service, with a key of its own, and what
Kubernetes makes of how it ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest

from tests.deploy.manifests import RELEASE, Manifest, one, rendered
from tests.deploy.pods import Deployment, Pod, run_job, running
from tests.e2e.conftest import RESIGHT
from tests.e2e.test_nightly import TRAINING, Site, site

__all__ = ["site"]

COMMAND = (str(RESIGHT),)
SETTINGS = (
    "access.existingSecret=access", "audit.existingSecret=", "nightly.enabled=true",
    "nightly.apiKey.existingSecret=night",
)  # fmt: skip


@dataclass
class Night:
    """The release, its pod, and the folder of its secrets."""

    manifests: list[Manifest]
    places: dict[str, Path]
    folder: Path
    pod: Pod
    bootstrap: str

    @property
    def job(self) -> Manifest:
        found: Manifest = one(self.manifests, "CronJob")["spec"]["jobTemplate"]["spec"]
        return found

    def run(self, *more: object) -> subprocess.CompletedProcess[str]:
        """The container, with the chart's options and what ``nightly.args`` would add."""
        return run_job(
            self.manifests, self.job["template"]["spec"], self.places, self.folder / "state",
            command=COMMAND, extra={"OMP_NUM_THREADS": "1"}, more=tuple(map(str, more)),
            addresses={f"{RELEASE}-resight:7443": f"127.0.0.1:{self.pod.ports['grpc']}"},
        )  # fmt: skip

    def judged(self, code: int) -> str:
        """What the Job's controller does: Complete, FailJob, or Count (tried again)."""
        if code == 0:
            return "Complete"
        for rule in self.job["podFailurePolicy"]["rules"]:
            asked = rule.get("onExitCodes")
            if asked and asked["operator"] == "In" and code in asked["values"]:
                return str(rule["action"])
        return "Count"

    def command(self, *arguments: object) -> None:
        """As an operator, with the key that the first keys are made with."""
        environment = os.environ | {"RESIGHT_API_KEY": self.bootstrap}
        target = ("--target", f"127.0.0.1:{self.pod.ports['grpc']}")
        done = subprocess.run(
            [str(each) for each in (*COMMAND, *arguments, *target)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def key(self, *options: str) -> None:
        """A new key in the night's secret."""
        file = self.places["/secrets"] / "night" / "api-key"
        file.unlink(missing_ok=True)
        self.command("keys", "create", "night", *options, "--output", file)

    def runs(self) -> list[dict[str, Any]]:
        answer = httpx.get(
            f"http://127.0.0.1:{self.pod.ports['rest']}/v1/galleries/default/adaptation-runs",
            headers={"authorization": f"Bearer {self.bootstrap}"},
        )
        found: list[dict[str, Any]] = answer.json()["runs"]
        return found


@pytest.fixture
def night(site: Site, tmp_path: Path) -> Iterator[Night]:
    manifests = rendered("single", *SETTINGS)
    places = {
        path: tmp_path / path.strip("/") for path in ("/tmp", "/secrets", "/bundle", "/dev/shm")
    }
    for path in (places["/tmp"], *(places["/secrets"] / name for name in ("access", "night"))):
        path.mkdir(parents=True)
    bootstrap = token_hex(32)
    (places["/secrets"] / "access" / "bootstrap-key").write_text(bootstrap)
    places["/bundle"] = places["/live"] = site.live
    deployment = Deployment(
        manifests, places, tmp_path / "pods", command=COMMAND, extra={"OMP_NUM_THREADS": "1"}
    )
    with running(deployment):
        made = Night(manifests, places, tmp_path, deployment.pods[0], bootstrap)
        made.command("ingest", site.crops / "train.csv", "--register-cameras")
        yield made


@pytest.mark.slow
def test_the_night_of_the_chart(night: Night) -> None:
    # A key that may only search learns nothing; another try would end the same way, and is one.
    night.key("--scope", "search", "--gallery", "default")
    done = night.run()
    assert (done.returncode, night.judged(done.returncode)) == (1, "Count"), done.stderr
    assert "models" in done.stderr
    assert night.runs() == []

    night.key("--scope", "models", "--gallery", "default")
    done = night.run("--min-crops", 100_000)
    assert (done.returncode, night.judged(done.returncode)) == (0, "Complete"), done.stderr

    done = night.run("--min-crop", 1)
    assert (done.returncode, night.judged(done.returncode)) == (2, "FailJob"), done.stderr

    worse = ("--epochs", 12, "--iterations", 8)
    done = night.run("--min-crops", 50, "--no-report", *TRAINING, *worse)
    assert (done.returncode, night.judged(done.returncode)) == (3, "FailJob"), done.stderr
    assert [run["state"] for run in night.runs()] == ["refused", "skipped"]
