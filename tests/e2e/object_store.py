"""An S3 of this machine (moto), and a way to it that can be cut."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

__all__ = ["ObjectStore", "running_object_store"]

ROOT = Path(__file__).resolve().parents[2]
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_BYTES = 65536
# It looks at who signed, not at the signature, unless it is told to ask for credentials.
_SIGNED = (
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
_VERSIONED = (
    b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Status>Enabled</Status></VersioningConfiguration>"
)


class Road:
    """Hands connections on to a port; while it is cut it ends them."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.is_cut = False
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection, and those that are tried."""
        with self._lock:
            self.is_cut = True
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Hand on again."""
        with self._lock:
            self.is_cut = False

    def close(self) -> None:
        """End everything for good."""
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                there = None
                if not self.is_cut:
                    with suppress(OSError):
                        there = socket.create_connection(("127.0.0.1", self._target))
                if there is None:
                    here.close()
                    continue
                self._open |= {here, there}
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_BYTES):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {source, target}
        source.close()


class ObjectStore:
    """A running one; services reach it by ``environment``, the tests directly."""

    def __init__(self, packages: Path, port: int) -> None:
        self._direct = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, headers={"authorization": _SIGNED}
        )
        self.road = Road(port)
        self.environment = {
            # Before .venv: the versions that go together.
            "PYTHONPATH": str(packages),
            "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.road.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_CONFIG_FILE": "/dev/null",
        }

    def close(self) -> None:
        """Let go of it."""
        self.road.close()
        self._direct.close()

    def make(self, bucket: str, *, versions: bool = False) -> None:
        """Make a bucket, perhaps one that keeps every version."""
        self._direct.put(f"/{bucket}").raise_for_status()
        if versions:
            self._direct.put(f"/{bucket}?versioning", content=_VERSIONED).raise_for_status()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Store an object."""
        self._direct.put(f"/{bucket}/{key}", content=data).raise_for_status()

    def content(self, bucket: str) -> dict[str, bytes]:
        """Every object; one that a service removes meanwhile is gone."""
        found = {}
        for key in self._listed(f"/{bucket}?list-type=2", "Contents"):
            answer = self._direct.get(f"/{bucket}/{key}")
            if answer.status_code != httpx.codes.NOT_FOUND:
                found[key] = answer.raise_for_status().content
        return found

    def versions(self, bucket: str) -> list[str]:
        """The key of every version of every object, and of every deletion."""
        url = f"/{bucket}?versions"
        return self._listed(url, "Version") + self._listed(url, "DeleteMarker")

    def ask_for_credentials(self, *, after: int | None) -> None:
        """Let in nobody unknown after so many requests; None: let everybody in."""
        content = str(10**9 if after is None else after).encode()
        self._direct.post("/moto-api/reset-auth", content=content).raise_for_status()

    def _listed(self, url: str, what: str) -> list[str]:
        answer = self._direct.get(url)
        answer.raise_for_status()
        page = ElementTree.fromstring(answer.content)  # noqa: S314 -- our own server's
        assert page.findtext(f"{_NAMESPACE}IsTruncated") == "false"
        return [
            str(each.findtext(f"{_NAMESPACE}Key")) for each in page.findall(f"{_NAMESPACE}{what}")
        ]


@contextmanager
def running_object_store(private: Path) -> Iterator[ObjectStore]:
    """A new one, empty; tests skip where ``make s3`` was not run."""
    packages = Path(os.environ.get("RESIGHT_S3", ROOT / ".s3"))
    if not (packages / "moto").is_dir():
        pytest.skip("no S3: `make s3` installs one, and the driver, beside .venv")
    log = private / "moto.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            env=os.environ | {"PYTHONPATH": str(packages)}, stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        store = ObjectStore(packages, _port(process, log))
        try:
            yield store
        finally:
            store.close()
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """As it says."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text(errors="replace"))
        if found:
            return int(found[1])
        assert process.poll() is None, log.read_text(errors="replace")
        time.sleep(0.05)
    raise AssertionError(f"moto does not say its port: {log.read_text(errors='replace')}")
