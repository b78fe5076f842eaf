"""How the chart's service is scraped, watched and scaled."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.telemetry import exposition
from service.transport.rest import probes
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


def test_what_prometheus_operator_scrapes_is_there_also_while_a_pod_is_not_ready() -> None:
    """ResightNotReady and its runbook read `resight_ready` of pods that are not ready."""
    manifests = rendered("production")
    spec = one(manifests, "ServiceMonitor")["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    (watched,) = (
        each for each in of_kind(manifests, "Service")
        if wanted <= each["metadata"]["labels"].items()
    )  # fmt: skip
    assert watched["spec"]["publishNotReadyAddresses"] is True
    (endpoint,), (port,) = spec["endpoints"], watched["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    app = FastAPI()
    probes.install(app, state=lambda: "starting", refresh=lambda: None)
    answer = TestClient(app).get(endpoint["path"])
    assert answer.status_code == 200
    assert "\nresight_ready " in answer.text
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    (bound,) = (each for each in container["ports"] if each["name"] == port["targetPort"])
    told = one(manifests, "ConfigMap")["data"]
    assert bound["containerPort"] == int(told["RESIGHT_PROBES__PORT"])


def test_the_autoscaler_asks_for_a_metric_that_is_exported() -> None:
    (metric,) = one(rendered("production"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert re.search(rf"^# TYPE {name} gauge$", exposition()[0].decode(), re.MULTILINE)
