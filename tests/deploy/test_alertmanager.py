"""Who is told of which alert, and which alerts a cause keeps back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.alerting import (
    AMTOOL,
    CONFIG,
    Alertmanager,
    alerting,
    eventually,
    needs_alertmanager,
)

FOLDER = CONFIG.parent
ALERTS = {
    rule["alert"]: rule["labels"]["severity"]
    for group in yaml.safe_load((FOLDER / "resight-alerts.rules.yml").read_text())["groups"]
    for rule in group["rules"]
}
# Labels that each has when it fires, from the cases of promtool.
LABELS: dict[str, dict[str, str]] = {
    expected["alertname"]: fired["exp_labels"]
    for path in sorted((FOLDER / "tests").glob("*.yml"))
    for case in yaml.safe_load(path.read_text())["tests"]
    for expected in case["alert_rule_test"]
    for fired in expected["exp_alerts"]
}
RULES: list[dict[str, Any]] = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
PRIVACY = re.compile("Resight(Audit|Erasure|Retention|ImageRemoval).+")
# What fires together, and what of it somebody is told.
SCENARIOS = {
    "the database is gone": (
        "DatabaseFailing ReplicaHeartbeatFailing ReplicaFollowFailing IndexLagging AuditFailing "
        "AuditUnwritable AuditUnsigned NotReady AvailabilityBurnFast AvailabilityBurnSlow "
        "IngestFailing ErasureOverdue",
        "DatabaseFailing ErasureOverdue",
    ),
    "the disk is full": (
        "DiskFull DiskFilling DatabaseFailing AuditUnwritable AuditFailing NotReady "
        "AvailabilityBurnFast AvailabilityBurnSlow IngestFailing",
        "DiskFull",
    ),
    "a replica is gone": (
        "Down NoTarget NotReady Restarting ReplicaHeartbeatFailing GalleryUnready LatencyBurnFast",
        "Down LatencyBurnFast",
    ),
    "the audit cannot be written": (
        "AuditUnwritable AuditFailing AuditUnsigned NotReady AvailabilityBurnFast IngestFailing "
        "QueueSaturated",
        "AuditUnwritable QueueSaturated",
    ),
    "anchors cannot be written, and calls fail for something else": (
        "AuditFailing AuditUnsigned NotReady AvailabilityBurnFast AvailabilityBurnSlow",
        "AuditFailing NotReady AvailabilityBurnFast",
    ),
    "a replica is cut off": (
        "ReplicaHeartbeatFailing ReplicaFollowFailing NotReady ReplicaLagging",
        "ReplicaHeartbeatFailing",
    ),
    "searches are slow": ("LatencyBurnFast LatencyBurnSlow", "LatencyBurnFast"),
    "nothing that explains it": (
        "NotReady AvailabilityBurnSlow RetentionOverdue CertificateExpired",
        "NotReady AvailabilityBurnSlow RetentionOverdue CertificateExpired",
    ),
}
_numbers = count()


def matched(matchers: list[str]) -> set[str]:
    """Alerts that a rule's matchers mean."""
    [matcher] = matchers
    found = re.fullmatch(r'alertname (=~|=) "?([^"]+)"?', matcher)
    assert found, matcher
    return {name for name in ALERTS if re.fullmatch(found[2], name)}


@needs_alertmanager
def test_amtool_accepts_it() -> None:
    done = subprocess.run(
        [AMTOOL, "check-config", str(CONFIG)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_alertmanager
@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_reaches_whom_its_severity_names(name: str) -> None:
    receiver = {"critical": "page", "warning": "tickets"}[ALERTS[name]]
    expected = f"privacy,{receiver}" if PRIVACY.match(name) else receiver
    done = subprocess.run(
        [AMTOOL, "config", "routes", "test", f"--config.file={CONFIG}",
         f"--verify.receivers={expected}", f"alertname={name}", f"severity={ALERTS[name]}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_causes_and_consequences_are_alerts_that_there_are_and_share_the_labels() -> None:
    for rule in RULES:
        sources, targets = matched(rule["source_matchers"]), matched(rule["target_matchers"])
        assert len(sources) == 1
        assert not sources & targets
        listed = rule["target_matchers"][0].count("|") + 1
        assert len(targets) == listed or "(Fast|Slow)" in rule["target_matchers"][0], rule
        for label in rule.get("equal", ()):
            for name in sources | targets:
                assert label in LABELS[name], (label, name)


def test_no_warning_silences_what_wakes_somebody_and_nothing_a_promise() -> None:
    for rule in RULES:
        [source], targets = matched(rule["source_matchers"]), matched(rule["target_matchers"])
        if ALERTS[source] == "warning":
            assert not {name for name in targets if ALERTS[name] == "critical"}
        assert not targets & {"ResightErasureOverdue", "ResightRetentionOverdue"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder: Path = tmp_path_factory.mktemp("alertmanager") / "made"
    with alerting(folder, wait="1h") as alertmanager:
        yield alertmanager


@needs_alertmanager
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_of_what_fires_together_the_cause_is_left(scenario: str, running: Alertmanager) -> None:
    firing, left = ({f"Resight{name}" for name in told.split()} for told in SCENARIOS[scenario])
    job = f"resight-{next(_numbers)}"
    alerts = []
    for name in sorted(firing):
        labels = LABELS[name] | {"alertname": name, "severity": ALERTS[name]}
        alerts.append(labels | {"job": job} | ({"instance": "a"} if "instance" in labels else {}))
    running.put(alerts)
    expected = {name: name not in left for name in firing}

    def seen() -> dict[str, bool]:
        return {name.partition("@")[0]: it for name, it in running.held_back(job=job).items()}

    eventually(lambda: seen() == expected, seen)


@needs_alertmanager
def test_the_fault_of_one_replica_explains_no_fault_of_another(running: Alertmanager) -> None:
    job = f"resight-{next(_numbers)}"
    fired = [("ResightDatabaseFailing", "a"), ("ResightAuditUnwritable", "a"),
             ("ResightAuditUnwritable", "b")]  # fmt: skip
    running.put(
        [
            {"alertname": name, "severity": "critical", "job": job, "instance": instance}
            for name, instance in fired
        ]
    )
    expected = {
        "ResightDatabaseFailing@a": False,
        "ResightAuditUnwritable@a": True,
        "ResightAuditUnwritable@b": False,
    }
    eventually(lambda: running.held_back(job=job) == expected, lambda: running.held_back(job=job))
