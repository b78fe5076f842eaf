"""Both listeners as clients see them: who is let in, and what a change of the files changes."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.access_settings import TlsSettings
from service.telemetry import REGISTRY
from tests.service.tls.authority import Authority, Files
from tests.service.tls.listening import Listeners, agreed, call, get, greeting, listening


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings(files: Files, ca: Path | None = None) -> TlsSettings:
    return TlsSettings(certificate_file=files.certificate, key_file=files.key, client_ca_file=ca)


def refused(service: Listeners, ca: Path | None, client: Files | None = None) -> None:
    """On both listeners."""
    with pytest.raises(grpc.RpcError) as caught:
        call(service.grpc, ca, client)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    if ca is not None:
        with pytest.raises(OSError):  # noqa: PT011  # of TLS, or cut off
            get(service.rest, greeting(ca, client))


def let_in(service: Listeners, ca: Path, client: Files | None = None) -> None:
    """On both listeners."""
    call(service.grpc, ca, client)
    assert get(service.rest, greeting(ca, client)).endswith(b"\r\nhere\r\n0\r\n\r\n")


def reloads(outcome: str) -> float:
    return REGISTRY.get_sample_value("resight_tls_reloads_total", {"outcome": outcome}) or 0.0


def expiry(certificate: str) -> float | None:
    return REGISTRY.get_sample_value(
        "resight_tls_certificate_expiry_timestamp_seconds", {"certificate": certificate}
    )


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_client_that_trusts_the_ca_and_nobody_else(
    ca: Authority, tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    other = Authority(tmp_path / "other", "other ca")
    files = ca.issue()
    with listening(settings(files), loop) as service:
        let_in(service, ca.file)
        refused(service, other.file)
        refused(service, None)
        assert service.callers == ["", ""]
        ca.issue(to=files)
        assert service.rotation.refresh()
        shown = ssl.get_server_certificate(service.rest)
        assert shown.strip() == files.certificate.read_text().strip()


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_versions_before_1_2_are_refused(ca: Authority) -> None:
    with listening(settings(ca.issue())) as service:
        host, port = service.grpc.split(":")
        for address in (service.rest, (host, int(port))):
            for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    agreed(address, greeting(ca.file, version=old))
            # The same client, so that it is the version that was refused.
            for new in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                name = f"TLSv1.{new - ssl.TLSVersion.TLSv1}"
                assert agreed(address, greeting(ca.file, version=new)) == name


def test_callers_show_a_certificate_and_are_known_by_it(ca: Authority, tmp_path: Path) -> None:
    callers = Authority(tmp_path / "callers", "callers ca")
    stranger = Authority(tmp_path / "strangers", "callers ca")
    good, old = callers.client("gate-7"), callers.client("old", days=-1, ago=9)
    with listening(settings(ca.issue(), callers.file)) as service:
        let_in(service, ca.file, good)
        assert service.callers == ["CN=gate-7", "CN=gate-7"]
        for wrong in (None, stranger.client(), ca.client("of the server's ca"), old):
            refused(service, ca.file, wrong)
        assert len(service.callers) == 2


def test_a_renewed_certificate_is_shown_and_open_streams_go_on(ca: Authority) -> None:
    files = ca.issue(days=30)
    with listening(settings(files)) as service:
        before = expiry("server")
        credentials = grpc.ssl_channel_credentials(ca.pem)
        with grpc.secure_channel(service.grpc, credentials) as channel:
            stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            watched = stub.Watch(health_pb2.HealthCheckRequest())
            next(watched)
            shown = ssl.get_server_certificate(service.rest)
            counted = reloads("reloaded")
            assert not service.rotation.refresh(), "nothing has changed"
            ca.issue(days=60, to=files)
            assert service.rotation.refresh()
            assert reloads("reloaded") == counted + 1
            assert expiry("server") == service.rotation.pair.expires.timestamp() != before
            renewed = files.certificate.read_text()
            host, port = service.grpc.split(":")
            for address in (service.rest, (host, int(port))):
                now = ssl.get_server_certificate(address)
                assert now.strip() == renewed.strip() != shown.strip()
            let_in(service, ca.file)
            assert len(list(itertools.islice(watched, 20))) == 20
            watched.cancel()


def test_a_bad_pair_changes_nothing(ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    files = ca.issue()
    good = files.certificate.read_bytes()
    with listening(settings(files)) as service:
        failed = reloads("failed")
        files.certificate.write_bytes(ca.issue("other").certificate.read_bytes())
        assert not service.rotation.refresh()
        assert reloads("failed") == failed, "half of a pair that is being written is no mishap"
        assert not service.rotation.refresh()
        assert not service.rotation.refresh()
        assert reloads("failed") == failed + 1, "one mishap is one mishap"
        assert "tls.key_file" in caplog.text
        assert "PRIVATE" not in caplog.text
        let_in(service, ca.file)
        assert ssl.get_server_certificate(service.rest).strip() == good.decode().strip()
        files.certificate.unlink()
        assert not service.rotation.refresh()
        assert not service.rotation.refresh()
        assert reloads("failed") == failed + 2
        let_in(service, ca.file)
        # Written at last, both halves.
        ca.issue(to=files)
        assert service.rotation.refresh()
        let_in(service, ca.file)


def test_a_client_ca_that_is_replaced(ca: Authority, tmp_path: Path) -> None:
    """What a context would keep: the old CA, and sessions of before."""
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
    bundle = tmp_path / "callers.pem"
    bundle.write_bytes(old.pem)
    with listening(settings(ca.issue(), bundle)) as service:
        mine, theirs = old.client(), new.client()
        context, sessions = greeting(ca.file, mine), []
        get(service.rest, context, sessions)
        assert sessions[0].has_ticket
        refused(service, ca.file, theirs)
        bundle.write_bytes(new.pem)
        assert service.rotation.refresh()
        let_in(service, ca.file, theirs)
        refused(service, ca.file, mine)
        assert expiry("client_ca") == new.certificate.not_valid_after_utc.timestamp()
        with pytest.raises(OSError):  # noqa: PT011
            get(service.rest, context, sessions)


def test_an_expiry_that_is_near_is_said(ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    with listening(settings(ca.issue(days=15))):
        assert "expires on" not in caplog.text
    with listening(settings(ca.issue(days=13))) as service:
        assert "tls.certificate_file" in caplog.text
        assert "expires on" in caplog.text
        said = caplog.text.count("expires on")
        service.rotation.refresh()
        assert caplog.text.count("expires on") == said, "once a day is enough"
