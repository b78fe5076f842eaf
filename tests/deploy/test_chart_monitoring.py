"""How the chart's service is scraped, watched and scaled."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from service.telemetry import exposition
from tests.deploy.manifests import CHART, RELEASE, of_kind, one, rendered, tool


def test_what_prometheus_operator_reads() -> None:
    """No schema of its kinds is at hand: the fields that its documentation names, and no others."""
    manifests = rendered("production")
    monitor = one(manifests, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) == {"jobLabel", "selector", "endpoints"}
    assert all(set(each) == {"port", "path", "interval"} for each in monitor["spec"]["endpoints"])
    rules = list(of_kind(manifests, "PrometheusRule"))
    assert len(rules) == 2
    for each in rules:
        assert set(each["spec"]) == {"groups"}
        assert {key for group in each["spec"]["groups"] for key in group} <= {
            "name", "rules", "interval", "limit",
        }  # fmt: skip


def test_the_rules_are_those_of_deploy_prometheus(tmp_path: Path) -> None:
    found = {
        each["metadata"]["name"]: each["spec"]
        for each in of_kind(rendered("production"), "PrometheusRule")
    }
    for name, spec in found.items():
        part = name.removeprefix(f"{RELEASE}-resight-")
        source = CHART.parents[1] / "prometheus" / f"resight-{part}.rules.yml"
        assert spec == yaml.safe_load(source.read_text())
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(spec))
        done = subprocess.run(
            [tool("promtool"), "check", "rules", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_alerts_find_the_job_of_a_release_of_any_name() -> None:
    """Those on what is not scraped select it by its name."""
    manifests = rendered("production", "nameOverride=vision", "fullnameOverride=vision")
    label = one(manifests, "ServiceMonitor")["spec"]["jobLabel"]
    watched = next(
        each for each in of_kind(manifests, "Service")
        if each["metadata"]["labels"].get("app.kubernetes.io/component") == "metrics"
    )  # fmt: skip
    assert "resight" in watched["metadata"]["labels"][label]


def test_the_autoscaler_asks_for_a_metric_that_is_exported() -> None:
    (metric,) = one(rendered("production"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert re.search(rf"^# TYPE {name} gauge$", exposition()[0].decode(), re.MULTILINE)
