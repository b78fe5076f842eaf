"""TLS and the probes listener of a real service: let in, kept out, and rotated under load."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from resight.v1 import gallery_service_pb2 as messages
from resight.v1 import gallery_service_pb2_grpc
from tests.ports import free_port
from tests.service.tls.authority import Authority, Files
from tests.service.tls.listening import greeting

RESIGHT = Path(sys.executable).with_name("resight")


def tls(files: Files, **more: object) -> dict[str, str]:
    """The environment of a service."""
    told = {"certificate_file": files.certificate, "key_file": files.key, "reload_seconds": 0.05}
    return {f"RESIGHT_TLS__{name.upper()}": str(value) for name, value in (told | more).items()}


def fetched(url: str, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, context=context, timeout=60) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@contextmanager
def gallery_of(
    target: str, ca: Path, client: Files | None = None
) -> Iterator[gallery_service_pb2_grpc.GalleryServiceStub]:
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(),
        None if client is None else client.key.read_bytes(),
        None if client is None else client.certificate.read_bytes(),
    )
    # Channels of one process share their connections unless told not to.
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.secure_channel(target, credentials, options=options) as channel:
        yield gallery_service_pb2_grpc.GalleryServiceStub(channel)


def metric(text: str, name: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return float(line.rsplit(" ", 1)[1])


def test_tls_and_probes(start_service: Any, tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    with start_service(tmp_path / "data", "--probes-port", "0", **tls(ca.issue())) as service:
        trusting = greeting(ca.file)
        assert fetched(f"https://{service.rest}/readyz", trusting)[0] == 200
        assert fetched(f"https://{service.rest}/v1/galleries/default/stats", trusting)[0] == 200
        with pytest.raises(OSError):  # noqa: PT011
            fetched(f"http://{service.rest}/readyz")
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            fetched(f"https://{service.rest}/readyz", ssl.create_default_context())
        # The probes are plain, and nothing else is there.
        assert fetched(f"http://{service.probes}/healthz") == (200, b'{"status":"alive"}')
        assert fetched(f"http://{service.probes}/readyz") == (200, b'{"status":"ready"}')
        shown = fetched(f"http://{service.probes}/metrics")[1].decode()
        name = 'resight_tls_certificate_expiry_timestamp_seconds{certificate="server"}'
        assert metric(shown, name) > time.time()
        for path in ("/v1/galleries/default/stats", "/v1/openapi.json", "/"):
            assert fetched(f"http://{service.probes}{path}")[0] == 404
        # The command line and the health check of containers.
        listed = [RESIGHT, "cameras", "list", "--target", service.grpc, "--json"]
        done = subprocess.run(
            [*listed, "--ca-file", ca.file], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["cameras"] == []
        done = subprocess.run(listed, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "speaks TLS" in done.stderr
        for url in (f"http://{service.probes}", f"https://{service.rest}"):
            check = [sys.executable, "-m", "service.healthcheck", "--ready", "--url", url]
            subprocess.run(check, check=True)
        assert service.stop() == 0


def test_probes_answer_while_the_service_starts(tiny_bundle: Path, tmp_path: Path) -> None:
    """A start that has to wait, here for a locked catalog, is alive and not ready."""
    (tmp_path / "data").mkdir()
    lock = sqlite3.connect(tmp_path / "data" / "catalog.sqlite", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    port = free_port()
    process = subprocess.Popen(
        [RESIGHT, "serve", "--bundle", tiny_bundle, "--data", tmp_path / "data",
         "--grpc-port", "0", "--rest-port", "0", "--probes-port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                found = fetched(f"http://127.0.0.1:{port}/readyz")
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert found == (503, b'{"status":"starting"}')
        assert fetched(f"http://127.0.0.1:{port}/healthz")[0] == 200
        assert b"resight_ready 0" in fetched(f"http://127.0.0.1:{port}/metrics")[1]
        lock.close()
        assert process.stdout is not None
        assert process.stdout.readline().rstrip().endswith(f" probes=127.0.0.1:{port}")
        assert fetched(f"http://127.0.0.1:{port}/readyz")[0] == 200
        process.terminate()
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()


def test_probes_answer_while_the_service_drains(start_service: Any, tmp_path: Path) -> None:
    with start_service(tmp_path, "--probes-port", "0", "--drain-delay", "600") as service:
        service.process.terminate()
        deadline = time.monotonic() + 120
        while (found := fetched(f"http://{service.probes}/readyz"))[0] == 200:
            assert time.monotonic() < deadline
        assert found == (503, b'{"status":"draining"}')
        assert fetched(f"http://{service.probes}/healthz")[0] == 200
        # It waits no longer for what balances load.
        assert service.stop() == 128 + signal.SIGTERM


def test_mtls(start_service: Any, tmp_path: Path) -> None:
    ca, callers = Authority(tmp_path / "ca"), Authority(tmp_path / "callers", "callers")
    mine, stranger = callers.client("gate-7"), ca.client("stranger")
    environment = tls(ca.issue(), client_ca_file=callers.file)
    with start_service(tmp_path / "data", **environment) as service:
        url = f"https://{service.rest}/v1/galleries/default/stats"
        request = messages.GetGalleryStatsRequest(gallery="default")
        assert fetched(url, greeting(ca.file, mine))[0] == 200
        with gallery_of(service.grpc, ca.file, mine) as gallery:
            gallery.GetGalleryStats(request, timeout=60)
        # Both stand in the audit by it.
        audit = fetched(f"https://{service.rest}/v1/audit", greeting(ca.file, mine))
        entries = [json.loads(entry["body"]) for entry in json.loads(audit[1])["entries"]]
        asked = [entry for entry in entries if entry["action"].endswith("GetGalleryStats")]
        assert [entry.get("certificate") for entry in asked] == ["CN=gate-7"] * 2
        for wrong in (None, stranger):
            with pytest.raises(OSError):  # noqa: PT011
                fetched(url, greeting(ca.file, wrong))
            with (
                gallery_of(service.grpc, ca.file, wrong) as gallery,
                pytest.raises(grpc.RpcError, match="UNAVAILABLE"),
            ):
                gallery.GetGalleryStats(request, timeout=60)


class Load:
    """Asks without a pause, with a new connection each time or one for all, and counts."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers = 0
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(120)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._ask()
                self.answers += 1
            except (grpc.RpcError, OSError) as error:
                self.failures.append(repr(error))

    def wait(self, more: int) -> None:
        """Until so many more answers have come."""
        aim, deadline = self.answers + more, time.monotonic() + 240
        while self.answers < aim and not self.failures:
            assert time.monotonic() < deadline, "no answers"
            time.sleep(0.01)


def test_rotation_under_load(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    """Certificates are replaced one after the other, bad ones between; not one request fails, and a
    stream that was open at the start ends as if nothing had happened.
    """
    ca = Authority(tmp_path / "ca")
    files = ca.issue(days=1000)
    with (
        start_service(tmp_path / "data", "--probes-port", "0", **tls(files)) as service,
        gallery_of(service.grpc, ca.file) as lasting,
    ):
        lasting.CreateCamera(
            messages.CreateCameraRequest(gallery="default", camera={"camera_id": "c1"})
        )
        stats = messages.GetGalleryStatsRequest(gallery="default")
        trusting = greeting(ca.file)
        url = f"https://{service.rest}/v1/galleries/default/stats"

        def anew() -> None:
            with gallery_of(service.grpc, ca.file) as gallery:
                gallery.GetGalleryStats(stats, timeout=60)

        def rest() -> None:
            if (answer := fetched(url, trusting))[0] != 200:
                raise OSError(str(answer))

        more = threading.Semaphore(0)
        results: list[Any] = []

        def items() -> Iterator[Any]:
            for number in range(6):
                more.acquire(timeout=240)
                yield messages.IngestCropsRequest(
                    sequence=number,
                    gallery="default",
                    crop={
                        "camera_id": "c1",
                        "capture_time": {"seconds": 1_770_000_000 + number},
                    },
                    image=make_jpeg(number),
                )

        answers = lasting.IngestCrops(items())
        serials = set()
        with (
            Load(anew) as calls,
            Load(rest) as requests,
            Load(lambda: lasting.GetGalleryStats(stats, timeout=60)) as steady,
        ):
            for days in range(1001, 1006):
                more.release()
                results.append(next(answers))
                if days == 1003:
                    # Half of a pair, for a while.
                    files.key.write_text("not written yet")
                    await_metric(service, 'resight_tls_reloads_total{outcome="failed"}', 1)
                ca.issue(days=days, to=files)
                await_reload(service, files)
                for load in (calls, requests, steady):
                    load.wait(5)
                serials.add(ssl.get_server_certificate(address(service.rest)))
            more.release()
            results += list(answers)
        assert [load.failures for load in (calls, requests, steady)] == [[], [], []]
        assert len(serials) == 5
        assert [result.sequence for result in results] == list(range(6))
        accepted = messages.IngestCropsResponse.OUTCOME_ACCEPTED
        assert {result.outcome for result in results} == {accepted}
        assert service.stop() == 0


def address(text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1)
    return host, int(port)


def await_metric(service: Any, name: str, least: float) -> None:
    deadline = time.monotonic() + 120
    while True:
        shown = fetched(f"http://{service.probes}/metrics")[1].decode()
        if name in shown and metric(shown, name) >= least:
            return
        assert time.monotonic() < deadline, name
        time.sleep(0.05)


def await_reload(service: Any, files: Files) -> None:
    """Until both listeners show the certificate that the file holds."""
    wanted = files.certificate.read_text().strip()
    deadline = time.monotonic() + 120
    for listener in (service.grpc, service.rest):
        while ssl.get_server_certificate(address(listener)).strip() != wanted:
            assert time.monotonic() < deadline, listener
            time.sleep(0.02)


def test_without_a_listener_of_their_own_probes_are_on_rest(
    start_service: Any, tmp_path: Path
) -> None:
    with start_service(tmp_path) as service:
        assert service.probes is None
        assert fetched(f"http://{service.rest}/healthz")[0] == 200
        done = subprocess.run(
            [sys.executable, "-m", "service.healthcheck", "--ready"],
            env=os.environ | {"RESIGHT_REST__PORT": service.rest.rsplit(":", 1)[1]},
            check=False,
        )
        assert done.returncode == 0
