"""The container's health check: which address it asks, and what it makes of the answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from service.healthcheck import address


class Answers(BaseHTTPRequestHandler):
    """Alive, and not ready."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()
        self.wfile.write(b'{"status": "draining"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "http://127.0.0.1:7080"),
        ({"RESIGHT_REST__PORT": "81", "RESIGHT_REST__HOST": "0.0.0.0"}, "http://127.0.0.1:81"),  # noqa: S104
        ({"RESIGHT_SERVE_REST_PORT": "82", "RESIGHT_REST__PORT": "81"}, "http://127.0.0.1:82"),
        ({"RESIGHT_TLS__CERTIFICATE_FILE": "/tls/tls.crt"}, "https://127.0.0.1:7080"),
        (
            {"RESIGHT_TLS__CERTIFICATE_FILE": "/tls/tls.crt", "RESIGHT_PROBES__PORT": "9"},
            "http://127.0.0.1:9",
        ),
        ({"RESIGHT_PROBES__PORT": "9", "RESIGHT_PROBES__HOST": "::"}, "http://[::1]:9"),
        ({"RESIGHT_PROBES__PORT": "9", "RESIGHT_PROBES__HOST": "10.1.2.3"}, "http://10.1.2.3:9"),
        ({"RESIGHT_SERVE_PROBES_PORT": "8", "RESIGHT_PROBES__PORT": "9"}, "http://127.0.0.1:8"),
    ],
)
def test_it_asks_where_the_service_listens(environment: dict[str, str], expected: str) -> None:
    assert address(environment) == expected


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.healthcheck", *options],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def test_alive_is_not_ready(port: int) -> None:
    alive = run(RESIGHT_PROBES__PORT=str(port))
    assert (alive.returncode, alive.stdout, alive.stderr) == (0, "", "")
    ready = run("--ready", "--url", f"http://127.0.0.1:{port}")
    assert ready.returncode == 1
    assert ready.stderr.startswith("error: ")
    assert "503" in ready.stderr
    assert "draining" in ready.stderr
    assert len(ready.stderr.splitlines()) == 1


def test_nobody_there() -> None:
    done = run("--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_imports_the_standard_library_alone() -> None:
    """It runs every few seconds in a container of few CPUs."""
    code = (
        "import sys, service.healthcheck;"
        "print({m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"pydantic", "grpc", "numpy", "uvicorn", "fastapi", "sqlalchemy", "resight"}
    assert not heavy & set(done.stdout.replace("'", " ").replace(",", " ").split())
