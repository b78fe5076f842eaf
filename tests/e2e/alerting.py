"""A real Alertmanager with deploy/prometheus/alertmanager.yml, and who is notified by it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.ports import free_port

__all__ = ["AMTOOL", "CONFIG", "Alertmanager", "alerting", "needs_alertmanager"]

CONFIG = Path(__file__).parents[2] / "deploy/prometheus/alertmanager.yml"
AMTOOL = shutil.which("amtool") or ""
PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager") or ""
needs_alertmanager = pytest.mark.skipif(
    not (PROGRAM and AMTOOL),
    reason="no Alertmanager (Debian: prometheus-alertmanager) is installed",
)


class Alertmanager:
    """A running one.

    Attributes:
        address: host:port.
        notified: Names of the alerts that each receiver was told of as firing.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.notified: dict[str, set[str]] = {}

    def put(self, alerts: Sequence[Mapping[str, str]]) -> None:
        """Alerts with these labels fire."""
        told = [{"labels": dict(labels)} for labels in alerts]
        url = f"http://{self.address}/api/v2/alerts"
        httpx.post(url, json=told, timeout=120).raise_for_status()

    def held_back(self, **labels: str) -> dict[str, bool]:
        """Of the alerts with these labels that fire: is each inhibited?"""
        chosen = [f'{name}="{value}"' for name, value in labels.items()]
        url = f"http://{self.address}/api/v2/alerts"
        found = httpx.get(url, params={"filter": chosen}, timeout=120).raise_for_status().json()
        return {
            each["labels"]["alertname"] + "@" + each["labels"].get("instance", ""): bool(
                each["status"]["inhibitedBy"]
            )
            for each in found
        }


@contextmanager
def alerting(folder: Path, *, wait: str) -> Iterator[Alertmanager]:
    """Run one whose receivers are webhooks of the test, and whose groups wait as long as this."""
    folder.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    running = Alertmanager(address)

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            firing = {
                each["labels"]["alertname"] for each in body["alerts"] if each["status"] == "firing"
            }
            running.notified.setdefault(body["receiver"], set()).update(firing)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    config = yaml.safe_load(CONFIG.read_text())
    config["route"] |= {"group_wait": wait, "group_interval": wait}
    for receiver in config["receivers"]:
        for hook in receiver["webhook_configs"]:
            hook["url"] = f"http://127.0.0.1:{server.server_port}/"
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log = folder / "alertmanager.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [PROGRAM, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data",
             f"--web.listen-address={address}", "--cluster.listen-address="],
            stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        until_ready(process, f"http://{address}/-/ready", log)
        yield running
    finally:
        process.kill()
        process.wait()
        server.shutdown()


def until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until it answers."""
    deadline = time.monotonic() + 60

    def answers() -> bool:
        try:
            return httpx.get(url, timeout=120).status_code == 200
        except httpx.TransportError:
            return False

    while not answers():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def eventually(holds: Callable[[], bool], told: Callable[[], object], seconds: float = 60) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)
