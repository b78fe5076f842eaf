"""A client over TLS: what it trusts and shows, and what it says when there is no connection."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from resight import cli
from resight.client import connection, diagnosis, shared_options
from resight.client.connection import connect
from resight.client.tls import Trust, chosen_trust
from resight.errors import InvalidArgument, Unavailable
from service.access_settings import TlsSettings
from tests.service.tls.authority import Authority, Files
from tests.service.tls.listening import listening

NAMES = ("CA_FILE", "CLIENT_CERT_FILE", "CLIENT_KEY_FILE", "CLIENT_TLS")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(f"RESIGHT_{name}", raising=False)
    monkeypatch.setattr(shared_options, "_chosen", {})
    # Of a busy machine; those that must fail are given less.
    monkeypatch.setattr(connection, "_CONNECT_SECONDS", 60.0)
    monkeypatch.setattr(diagnosis, "_SECONDS", 60.0)


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings(files: Files, ca: Path | None = None) -> TlsSettings:
    return TlsSettings(certificate_file=files.certificate, key_file=files.key, client_ca_file=ca)


def asked(target: str, trust: Trust | None = None) -> None:
    with connect(target, trust=trust) as made:
        stub = health_pb2_grpc.HealthStub(made.channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=60)


def fault(target: str, trust: Trust | None = None) -> str:
    with pytest.MonkeyPatch.context() as impatient:
        impatient.setattr(connection, "_CONNECT_SECONDS", 0.2)
        with pytest.raises(Unavailable) as caught:
            asked(target, trust)
    assert "\n" not in caught.value.message
    assert target in caught.value.message
    return caught.value.message


def test_tls_with_a_ca(ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(settings(ca.issue())) as service:
        asked(service.grpc, Trust(ca_file=ca.file))
        asked(service.grpc.replace("127.0.0.1", "localhost"), Trust(ca_file=ca.file))
        monkeypatch.setenv("RESIGHT_CA_FILE", str(ca.file))
        asked(service.grpc)
        # Of the system: OpenSSL's variable stands for the system's file.
        monkeypatch.delenv("RESIGHT_CA_FILE")
        monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
        monkeypatch.setenv("RESIGHT_CLIENT_TLS", "true")
        asked(service.grpc)


def test_mtls(ca: Authority, tmp_path: Path) -> None:
    callers = Authority(tmp_path / "callers", "callers")
    mine, stranger = callers.client(), Authority(tmp_path / "strangers").client()
    with listening(settings(ca.issue(), callers.file)) as service:
        asked(service.grpc, Trust(False, ca.file, mine.certificate, mine.key))
        assert service.callers == ["CN=caller"]
        assert "--client-cert-file" in fault(service.grpc, Trust(ca_file=ca.file))
        told = fault(service.grpc, Trust(False, ca.file, stranger.certificate, stranger.key))
        assert "does not take the client certificate" in told
        assert str(stranger.certificate) in told


def test_what_stands_in_the_way_is_said(ca: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with listening(settings(ca.issue())) as service:
        told = fault(service.grpc)
        assert "speaks TLS" in told
        assert "--ca-file" in told
        told = fault(service.grpc, Trust(ca_file=other.file))
        assert "not trusted" in told
        assert str(other.file) in told
        assert "the system's CAs" in fault(service.grpc, Trust(tls=True))
        elsewhere = service.grpc.replace("127.0.0.1", "127.0.0.2")
        # gRPC listens on 127.0.0.1 alone, so the name is tried with one that resolves to it.
        assert "no service answers" in fault(elsewhere, Trust(ca_file=ca.file))


def test_an_expired_certificate_and_one_for_another_name(ca: Authority, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with greeting_alone(context) as port:
        old = ca.issue("old", days=-1, ago=9)
        context.load_cert_chain(old.certificate, old.key)
        assert "expired" in fault(f"127.0.0.1:{port}", Trust(ca_file=ca.file))
        new = ca.issue("new", ago=-1)
        context.load_cert_chain(new.certificate, new.key)
        assert "not valid yet" in fault(f"127.0.0.1:{port}", Trust(ca_file=ca.file))
        good = ca.issue("good")
        context.load_cert_chain(good.certificate, good.key)
        name = socket.gethostname()
        if socket.gethostbyname(name).startswith("127."):
            assert "another name" in fault(f"{name}:{port}", Trust(ca_file=ca.file))


def test_a_service_that_speaks_no_tls(ca: Authority) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        told = fault(f"127.0.0.1:{port}", Trust(ca_file=ca.file))
        assert "speaks no TLS" in told
    finally:
        server.stop(0)
    assert "resight serve" in fault("127.0.0.1:1", Trust(ca_file=ca.file))


class greeting_alone:  # noqa: N801
    """Handshakes on a port, and nothing more."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> int:
        self._thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                self._context.wrap_socket(plain, server_side=True).close()
            except OSError:
                plain.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"client_cert_file": Path("a")}, "--client-key-file"),
        ({"client_key_file": Path("a")}, "--client-cert-file"),
    ],
)
def test_half_of_a_pair(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        chosen_trust(**arguments)


def test_files_that_cannot_be_used(
    ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(trust: Trust) -> str:
        with pytest.raises(InvalidArgument) as caught:
            asked("127.0.0.1:1", trust)
        return caught.value.message

    text = tmp_path / "text"
    text.write_text("nothing")
    one, other = ca.client("one"), ca.client("other")
    assert "--ca-file" in refused(Trust(ca_file=tmp_path / "gone"))
    assert "no certificate" in refused(Trust(ca_file=text))
    assert "no pair" in refused(Trust(False, ca.file, one.certificate, other.key))
    assert "cannot be read" in refused(Trust(False, ca.file, one.certificate, tmp_path / "gone"))
    locked = ca.issue("locked", password=b"secret")
    assert "not encrypted" in refused(Trust(False, ca.file, locked.certificate, locked.key))
    monkeypatch.setenv("RESIGHT_CLIENT_TLS", "perhaps")
    with pytest.raises(InvalidArgument, match="RESIGHT_CLIENT_TLS"):
        asked("127.0.0.1:1")


@pytest.mark.parametrize(
    "command", [["cameras", "list"], ["models", "list"], ["gallery", "stats"], ["adapt", "nightly"]]
)
def test_every_client_command_takes_the_options(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    told = CliRunner().invoke(cli.app, [*command, "--help"]).stdout
    for option in ("--ca-file", "--client-cert-file", "--client-key-file", "--tls"):
        assert option in told


def test_a_command_says_it_in_one_line(ca: Authority) -> None:
    """gRPC's own lines about handshakes stay away from stderr."""
    with listening(settings(ca.issue())) as service:
        stranger = Authority(ca.folder / "other")
        command = [
            Path(sys.executable).with_name("resight"), "cameras", "list",
            "--target", service.grpc, "--ca-file", stranger.file,
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if name[:5] != "GRPC_"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=120
        )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "not trusted" in done.stderr
