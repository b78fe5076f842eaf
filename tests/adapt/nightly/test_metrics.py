"""The exposition against Prometheus' own parser, the push against a real HTTP server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapt.nightly.metrics import Metric, checked_gateway, exposition, push, write
from adapt.nightly.outcome import NightOutcome, metrics_of
from adapt.nightly.state import Memory
from resight.errors import InvalidArgument

ODD = 'site "a\\b"\nnorth'


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def a_night() -> NightOutcome:
    night = NightOutcome("site", result="refused", reason="GATE_REFUSED", message="collapsed")
    night.crops = {"available": 900, "new": 880, "replay": 264, "unusable": 3}
    night.seconds = {"pull": 1.5, "train": 60.0, "total": 70.25}
    night.summary = {"epochs": [{"clusters": 5}, {"clusters": 7, "outliers": 2, "loss": 1e-9}]}
    night.verdict = {"score": -0.5, "baseline_score": None}
    return night


def test_a_night_reads_back_as_it_was() -> None:
    text = exposition(metrics_of(a_night(), Memory(last_success=1.5e9), now=1.6e9), gallery="site")
    found = parsed(text)
    site = ("gallery", "site")
    assert found[("resight_night_last_run_timestamp_seconds", (site,))] == 1.6e9
    assert found[("resight_night_last_success_timestamp_seconds", (site,))] == 1.5e9
    results = {
        dict(labels)["result"]: value
        for (name, labels), value in found.items()
        if name == "resight_night_result"
    }
    assert results == {"refused": 1, "succeeded": 0, "skipped": 0, "failed": 0, "held": 0}
    assert found[("resight_night_crops", (site, ("kind", "replay")))] == 264
    assert found[("resight_night_duration_seconds", (site, ("phase", "total")))] == 70.25
    assert found[("resight_night_clusters", (site,))] == 7
    assert found[("resight_night_outliers", (site,))] == 2
    assert found[("resight_night_loss", (site,))] == 1e-9
    assert found[("resight_night_epochs", (site,))] == 2
    assert found[("resight_night_gate_score", (site,))] == -0.5
    names = {name for name, _ in found}
    assert "resight_night_gate_baseline_score" not in names, "what is not known is not shown"
    assert all(name.startswith("resight_night_") for name in names)


def test_a_night_that_never_began_shows_its_result_alone() -> None:
    names = {
        name
        for name, _ in parsed(
            exposition(metrics_of(NightOutcome("x"), Memory(), now=1), gallery="x")
        )
    }
    assert names == {"resight_night_last_run_timestamp_seconds", "resight_night_result"}


def test_odd_names_are_escaped_and_nan_is_left_out() -> None:
    metric = Metric("m", "help", (({"a": ODD}, 1.0), ({"a": "b"}, float("nan"))))
    assert parsed(exposition([metric], gallery=ODD)) == {("m", (("a", ODD), ("gallery", ODD))): 1.0}


def test_the_file_is_replaced_at_once_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "night.prom"
    write(path, "a 1\n")
    write(path, "a 2\n")
    assert path.read_text() == "a 2\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="absent"):
        write(tmp_path / "absent" / "night.prom", "")


class Gateway(BaseHTTPRequestHandler):
    status = 200
    seen: list[tuple[str, str, str, bytes]]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.command, self.path, self.headers["Content-Type"], body))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def gateway(status: int = 200) -> Iterator[tuple[str, list[tuple[str, str, str, bytes]]]]:
    seen: list[tuple[str, str, str, bytes]] = []
    handler = type("Handler", (Gateway,), {"seen": seen, "status": status})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_push_replaces_the_group_of_the_gallery() -> None:
    with gateway() as (url, seen):
        push(url + "/", "m 1\n", gallery="a/b c")
    assert seen == [
        (
            "PUT",
            "/metrics/job/resight_night/gallery/a%2Fb%20c",
            "text/plain; version=0.0.4; charset=utf-8",
            b"m 1\n",
        )
    ]


def test_a_gateway_that_refuses_or_is_away_is_an_error_of_the_system() -> None:
    with gateway(400) as (url, _), pytest.raises(OSError, match="400"):
        push(url, "m 1\n", gallery="x")
    with pytest.raises(OSError, match="refused"):
        push(url, "m 1\n", gallery="x")


@pytest.mark.parametrize("url", ["gateway:9091", "file:///etc/passwd", "ftp://x", "http://", ""])
def test_only_web_addresses_are_pushed_to(url: str) -> None:
    with pytest.raises(InvalidArgument, match="push-gateway"):
        checked_gateway(url)
