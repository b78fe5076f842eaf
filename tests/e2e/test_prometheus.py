"""A real Prometheus scrapes a real service: targets, exemplars, every query of the documents and
boards; and provoked faults fire their alerts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import onnxruntime
import pytest
import yaml
from PIL import Image

from tests.e2e.conftest import RESIGHT, ServiceProcess, encoded
from tests.e2e.scraping import Prometheus, hurried, needs_prometheus, scraping
from tests.faults.small_disk import small_disk

pytestmark = needs_prometheus

ROOT = Path(__file__).parents[2]
QUICK = {"RESIGHT_METRICS__REFRESH_SECONDS": "0.2", "RESIGHT_METRICS__DRIFT_SECONDS": "0.5"}
START = datetime(2026, 3, 1, tzinfo=UTC)
# Series that a session of use does not make, and why.
NOT_YET = {
    "a fault": (
        "resight_provider_fallback_total", "resight_index_filled_total",
        "resight_abandoned_total",
    ),
    "a night": ("resight_adaptation_",),
    "a second model": ("resight_mirror_", "resight_model_changes_total", "resight_model_filled_"),
    "metrics.camera_labels, or more crops": ("resight_camera_drift_", "resight_drift_shift",
                                             "resight_drift_low_match_share"),
    "several replicas": ("resight_replica_",),
    "TLS": ("resight_tls_",),
    "crops that are too old": ("resight_retention_dropped_total",),
    "authentication": ("resight_authentications_total",),
    "an erasure": ("resight_erasures_total",),
    "a crop deleted, or an index written": ("resight_index_writes_total",),
    "a limit reached": ("resight_rejected_total",),
}  # fmt: skip


def until(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait until something is true; returns it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


def use(service: ServiceProcess, image: Callable[[int], bytes]) -> httpx.Client:
    """A session of use over REST: two cameras, a few crops, a few searches."""
    client = httpx.Client(base_url=f"http://{service.rest}/v1/galleries/site", timeout=60)
    for camera in ("left", "right"):
        client.post("/cameras", json={"camera_id": camera}).raise_for_status()
    for number in range(6):
        told = {
            "camera_id": ("left", "right")[number % 2],
            "capture_time": (START + timedelta(minutes=number)).isoformat(),
        }
        files = {"image": ("crop.jpg", image(number))}
        client.post("/crops", files=files, data=told).raise_for_status()
    for number in range(3):
        search(client, image(number)).raise_for_status()
    return client


def search(client: httpx.Client, image: bytes) -> httpx.Response:
    return client.post("/search", files={"image": ("query.jpg", image)}, data={"top_k": "3"})


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, start_service: Any, make_jpeg: Any
) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a service after a session of use."""
    folder = tmp_path_factory.mktemp("watched")
    with (
        start_service(folder / "data", **QUICK) as service,
        scraping(folder / "prometheus", service.rest) as prometheus,
    ):
        client = use(service, make_jpeg)
        prometheus.refused = search(client, b"no image").json()["request_id"]
        stored = 'resight_crops_stored_total{gallery="site"} == 6'
        until(lambda: prometheus.get("/query", query=stored)["result"])
        yield prometheus


def test_the_service_is_up_and_no_alert_fires(watched: Prometheus) -> None:
    # Longer than what any rule waits for before it fires; a scrape that a busy machine misses is
    # forgotten after seconds, while what is wrong with a rule stays.
    time.sleep(3)
    until(lambda: watched.up() == ["up"] and watched.firing() == {})


def test_exemplars_arrive_with_the_id_that_the_caller_was_told(watched: Prometheus) -> None:
    # The whole template, by which the rules of latency know searches over REST.
    template = "POST /v1/galleries/{gallery}/search"
    query = f'resight_request_duration_seconds_bucket{{method="{template}"}}'

    def ids() -> set[str]:
        now = time.time()
        found = watched.get("/query_exemplars", query=query, start=now - 600, end=now + 60)
        return {one["labels"]["request_id"] for told in found for one in told["exemplars"]}

    until(lambda: watched.refused in ids())
    assert all(re.fullmatch(r"[0-9a-f]{32}", told) for told in ids())


def test_every_query_of_documents_and_boards_is_answered(watched: Prometheus) -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    queries = re.findall(r"^```promql\n(.*?)\n```", page, re.MULTILINE | re.DOTALL)
    queries += [re.sub(r"\$\w+", ".*", query) for query in board_queries()]
    assert len(queries) > 150
    for query in queries:
        watched.get("/query", query=query)


def test_what_boards_show_is_exported(watched: Prometheus) -> None:
    wanted = {name for query in board_queries() for name in re.findall(r"\bresight_\w+", query)}
    late = tuple(prefix for prefixes in NOT_YET.values() for prefix in prefixes)
    due = {name for name in wanted if not name.startswith(late)}

    def missing() -> set[str]:
        return due - set(watched.get("/label/__name__/values"))

    # Some are refreshed in their own time.
    deadline = time.monotonic() + 120
    while missing() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert missing() == set()
    assert len(wanted & set(watched.get("/label/__name__/values"))) > 35


def board_queries() -> list[str]:
    return [
        target["expr"]
        for path in sorted((ROOT / "deploy/grafana").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def test_hurried_rules_differ_in_their_durations_alone() -> None:
    def without_durations(text: str) -> list[dict[str, str]]:
        return [
            rule
            | {"expr": re.sub(r"(\[|offset )\d+[a-z]+", r"\1", rule["expr"])}
            | {name: name in rule for name in ("for", "keep_firing_for")}
            for group in yaml.safe_load(text)["groups"]
            for rule in group["rules"]
        ]

    for path in (ROOT / "deploy/prometheus").glob("*.rules.yml"):
        text = path.read_text()
        assert without_durations(text) == without_durations(hurried(text))
        assert yaml.safe_load(text) != yaml.safe_load(hurried(text))
    short = hurried("groups: [{rules: [{alert: A, expr: 'rate(a[5m]) offset 2h', for: 10m}]}]")
    rule = yaml.safe_load(short)["groups"][0]["rules"][0]
    assert (rule["expr"], rule["for"]) == ("rate(a[5000ms]) offset 120000ms", "10000ms")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA can be had"
)
def test_an_encoder_that_fell_back_to_the_cpu_answers_and_fires_its_alert(
    tmp_path: Path, start_service: Any, make_jpeg: Any
) -> None:
    environment = {"RESIGHT_ENCODER__PROVIDER": "cuda", "RESIGHT_ENCODER__FALLBACK": "cpu"}
    with (
        start_service(tmp_path / "data", **environment) as service,
        scraping(tmp_path / "prometheus", service.rest) as prometheus,
    ):
        use(service, make_jpeg)
        until(lambda: "ResightEncoderFallback" in prometheus.firing())
        told = prometheus.firing()["ResightEncoderFallback"]
        assert told.endswith("runs on CPUExecutionProvider instead of CUDAExecutionProvider")
        [info] = prometheus.get("/query", query="resight_model_info")["result"]
        assert info["metric"]["provider"] == "CPUExecutionProvider"


def test_faults_fire_their_alerts(
    tmp_path: Path, own_postgresql: Any, start_service: Any, make_jpeg: Any
) -> None:
    """An image on which the encoder fails, a full disk, a database that is gone, a service that
    is killed: each is seen within seconds, where a second stands for a minute.
    """
    poison = encoded(Image.new("RGB", (64, 128), (255, 255, 255)), "PNG")
    with ExitStack() as stack:
        url = stack.enter_context(own_postgresql.database())
        disk = stack.enter_context(small_disk(tmp_path / "disk", 64))
        environment = QUICK | {"RESIGHT_DATABASE_URL": url}
        upgrade = [RESIGHT, "db", "upgrade"]
        subprocess.run(upgrade, env=os.environ | environment, check=True, timeout=120)
        service = stack.enter_context(start_service(disk.path / "data", **environment))
        prometheus = stack.enter_context(scraping(tmp_path / "prometheus", service.rest))
        client = use(service, make_jpeg)

        def fires(*names: str, meanwhile: Callable[[], object] = lambda: None) -> None:
            def seen() -> bool:
                meanwhile()
                return prometheus.firing().keys() >= set(names)

            until(seen)

        fires("ResightAvailabilityBurnFast", "ResightEncoderFailing",
              meanwhile=lambda: search(client, poison))  # fmt: skip
        disk.fill()
        fires("ResightDiskFull")
        disk.empty()
        until(lambda: "ResightDiskFull" not in prometheus.firing())
        own_postgresql.stop()
        try:
            fires("ResightReplicaHeartbeatFailing", "ResightDatabaseFailing", "ResightAuditFailing",
                  meanwhile=lambda: client.get("/stats"))  # fmt: skip
        finally:
            own_postgresql.start()
        service.process.kill()
        fires("ResightDown")
        assert "does not answer" in prometheus.firing()["ResightDown"]
