"""Fuzzing: a fixed number of inputs, the same each time; ``RESIGHT_FUZZ_EXAMPLES`` multiplies it
and then draws others each time.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.e2e.conftest import jpeg, serving, tiny_bundle_at

TIMES = int(os.environ.get("RESIGHT_FUZZ_EXAMPLES", "1"))
COUNTS: Counter[str] = Counter()
GALLERY = "default"


def examples(number: int) -> settings:
    """So many examples, times what is asked for."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def count(what: str, number: int = 1) -> None:
    """Count inputs, for the summary."""
    COUNTS[what] += number


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many inputs there were."""
    if COUNTS:
        terminalreporter.section("fuzzed inputs")
        for what, number in sorted(COUNTS.items()):
            terminalreporter.line(f"{what}: {number}")
        terminalreporter.line(f"all: {COUNTS.total()}")


@dataclass
class Target:
    """A service under fuzzing, with crops whose best match is known."""

    service: Any
    headers: dict[str, str]
    crops: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.service.rest}/v1/galleries/{GALLERY}"

    def fill(self) -> None:
        answer = httpx.post(
            f"{self.url}/cameras", json={"camera_id": "door"}, headers=self.headers, timeout=120
        )
        assert answer.status_code == 201, answer.text
        for number in range(6):
            answer = httpx.post(
                f"{self.url}/crops",
                files={"image": jpeg(number)},
                data={"camera_id": "door", "capture_time": f"2026-01-01T00:0{number}:00Z"},
                headers=self.headers,
                timeout=120,
            )
            assert answer.status_code == 201, answer.text
            self.crops.append(answer.json()["crop_id"])

    def check_alive(self) -> None:
        """It answers, and rightly; it has logged no fault of its own."""
        assert self.service.process.poll() is None, "the service is dead"
        for number in (1, 4):
            answer = httpx.post(
                f"{self.url}/search",
                files={"image": jpeg(number)},
                headers=self.headers,
                timeout=120,
            )
            assert answer.status_code == 200, answer.text
            best = answer.json()["matches"][0]
            assert best["crop"]["crop_id"] == self.crops[number]
            assert np.isclose(best["score"], 1, atol=1e-4)
        lines = self.service.log.read_text().splitlines()
        told = [json.loads(line) for line in lines]
        assert [line for line in told if line["level"] in ("error", "critical")] == []


@pytest.fixture(scope="session")
def fuzzed_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle_at(tmp_path_factory.mktemp("fuzz") / "bundle")


@pytest.fixture(scope="module", params=["without keys", "with keys"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fuzzed_bundle: Path
) -> Iterator[Target]:
    data = tmp_path_factory.mktemp("target")
    headers, environment = {}, {}
    if request.param == "with keys":
        key = secrets.token_urlsafe(32)
        (data / "key").write_text(key)
        (data / "key").chmod(0o400)
        headers = {"authorization": f"Bearer {key}"}
        environment = {
            "RESIGHT_ACCESS__AUTHENTICATION": "on",
            "RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE": str(data / "key"),
        }
    with serving(fuzzed_bundle, data / "data", **environment) as process:
        made = Target(process, headers)
        made.fill()
        yield made
        made.check_alive()
