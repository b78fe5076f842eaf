"""A real Prometheus beside a service, with the rules of deploy/prometheus in a hurry."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.ports import free_port

__all__ = ["PROGRAM", "Prometheus", "hurried", "needs_prometheus", "scraping"]

RULES = Path(__file__).parents[2] / "deploy/prometheus"
PROGRAM = shutil.which("prometheus") or ""
needs_prometheus = pytest.mark.skipif(
    not PROGRAM, reason="prometheus (Debian: prometheus) is not installed"
)
_DURATION = re.compile(r"(\d+)([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}
# A minute of the rules is a second here.
FASTER = 60


def hurried(text: str, faster: int = FASTER) -> str:
    """Rules with each duration, in brackets, after `offset`, in `for` or `keep_firing_for`, so many
    times shorter."""

    def shorter(match: re.Match[str]) -> str:
        return f"{int(match[1]) * _SECONDS[match[2]] * 1000 // faster}ms"

    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(
                r"\[\d+[mhd]\]|offset \d+[mhd]",
                lambda found: _DURATION.sub(shorter, found[0]),
                rule["expr"],
            )
            for waits in ("for", "keep_firing_for"):
                if waits in rule:
                    rule[waits] = _DURATION.sub(shorter, rule[waits])
    return yaml.safe_dump(rules)


class Prometheus:
    """A running one; ``refused`` is the request that the service refused last."""

    refused = ""

    def __init__(self, address: str) -> None:
        self.api = httpx.Client(base_url=f"http://{address}/api/v1", timeout=60)

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of an answer; fails on an error."""
        answer = self.api.get(path, params=parameters)
        told = answer.json()
        assert told["status"] == "success", (path, parameters, told)
        return told["data"]

    def firing(self) -> dict[str, str]:
        """Summaries of the alerts that fire, by name."""
        return {
            alert["labels"]["alertname"]: alert["annotations"]["summary"]
            for alert in self.get("/alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def up(self) -> list[str]:
        """Health of each target."""
        return [target["health"] for target in self.get("/targets")["activeTargets"]]


@contextmanager
def scraping(
    folder: Path,
    target: str,
    *,
    faster: int = FASTER,
    often: str = "500ms",
    alertmanager: str = "",
) -> Iterator[Prometheus]:
    """Scrape a service so often, keep the hurried rules, tell the Alertmanager that is named."""
    folder.mkdir(parents=True)
    for path in RULES.glob("*.rules.yml"):
        (folder / path.name).write_text(hurried(path.read_text(), faster))
    config = {
        "global": {"scrape_interval": often, "scrape_timeout": often, "evaluation_interval": often},
        "rule_files": ["*.rules.yml"],
        "scrape_configs": [{"job_name": "resight", "static_configs": [{"targets": [target]}]}],
    }
    if alertmanager:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    log = folder / "prometheus.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [PROGRAM, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/db",
             f"--web.listen-address={address}", "--enable-feature=exemplar-storage"],
            stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if httpx.get(f"http://{address}/-/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield Prometheus(address)
    finally:
        process.kill()
        process.wait()
