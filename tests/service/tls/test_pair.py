"""The TLS files: what is refused, with the setting and the fix, and what is not."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from resight.errors import FailedPrecondition
from service.access_settings import TlsSettings
from service.tls.pair import read_pair
from tests.service.tls.authority import CLIENT, Authority, Files


def settings(files: Files, ca: Path | None = None) -> TlsSettings:
    return TlsSettings(certificate_file=files.certificate, key_file=files.key, client_ca_file=ca)


def refusal(found: TlsSettings, now: datetime | None = None) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as caught:
        read_pair(found, now or datetime.now(UTC))
    assert "\n" not in caught.value.message
    return caught.value


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_good_pair(ca: Authority) -> None:
    files = ca.issue()
    pair = read_pair(settings(files, ca.file), datetime.now(UTC))
    assert pair is not None
    assert pair.subject == "CN=resight"
    assert pair.certificate == files.certificate.read_bytes()
    assert pair.client_ca == ca.pem
    # As another program reads it.
    said = subprocess.run(
        ["openssl", "x509", "-enddate", "-noout", "-in", files.certificate],  # noqa: S607
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert pair.expires.strftime("%b %e %H:%M:%S %Y") in said
    assert read_pair(TlsSettings(), datetime.now(UTC)) is None


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("certificate_file", "key_file"),
        ("key_file", "certificate_file"),
        ("client_ca_file", "certificate_file"),
    ],
)
def test_half_of_it(given: str, missing: str) -> None:
    with pytest.raises(ValidationError, match=f"{given} is set and {missing} is not"):
        TlsSettings.model_validate({given: "/tls/file"})


def test_expired_and_not_yet_valid(ca: Authority) -> None:
    expired = refusal(settings(ca.issue(days=-1, ago=5)))
    assert expired.field == "tls.certificate_file"
    assert "expired on" in expired.message
    assert "renewed" in expired.message
    early = refusal(settings(ca.issue(ago=-1)))
    assert "is valid from" in early.message
    assert "clock" in early.message


def test_a_certificate_of_another_key(ca: Authority) -> None:
    one, other = ca.issue("one"), ca.issue("other")
    error = refusal(settings(Files(one.certificate, other.key)))
    assert error.field == "tls.key_file"
    assert "one.crt" in error.message


def test_a_chain_the_wrong_way_round(ca: Authority, tmp_path: Path) -> None:
    files = ca.issue()
    good = tmp_path / "chain.pem"
    good.write_bytes(files.certificate.read_bytes() + ca.pem)
    assert read_pair(settings(Files(good, files.key)), datetime.now(UTC)) is not None
    turned = tmp_path / "turned.pem"
    turned.write_bytes(ca.pem + files.certificate.read_bytes())
    assert "first" in refusal(settings(Files(turned, files.key))).message


def test_an_encrypted_key(ca: Authority) -> None:
    error = refusal(settings(ca.issue(password=b"secret")))
    assert error.field == "tls.key_file"
    assert "encrypted" in error.message
    assert "secret" not in error.message


def test_files_that_are_missing_or_something_else(ca: Authority, tmp_path: Path) -> None:
    files = ca.issue()
    text = tmp_path / "text"
    text.write_text("nothing of the kind")
    gone = tmp_path / "gone"
    assert refusal(settings(Files(gone, files.key))).field == "tls.certificate_file"
    assert "No such file" in refusal(settings(Files(files.certificate, gone))).message
    assert "no certificate" in refusal(settings(Files(text, files.key))).message
    assert "no private key" in refusal(settings(Files(files.certificate, text))).message
    assert refusal(settings(files, text)).field == "tls.client_ca_file"
    # The two files exchanged.
    assert "no certificate" in refusal(settings(Files(files.key, files.certificate))).message


def test_a_certificate_that_is_not_for_servers(ca: Authority) -> None:
    assert "serverAuth" in refusal(settings(ca.issue(usage=CLIENT))).message


def test_a_client_ca_that_has_expired(ca: Authority, tmp_path: Path) -> None:
    old = Authority(tmp_path / "old", days=-1, ago=9)
    files = ca.issue()
    assert "expired" in refusal(settings(files, old.file)).message
    # One of two still vouches for callers.
    both = tmp_path / "both.pem"
    both.write_bytes(old.pem + ca.pem)
    pair = read_pair(settings(files, both), datetime.now(UTC))
    assert pair is not None
    assert pair.client_ca_expires == ca.certificate.not_valid_after_utc


def test_a_key_that_is_too_short(ca: Authority, tmp_path: Path) -> None:
    files = Files(tmp_path / "weak.crt", tmp_path / "weak.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=weak",  # noqa: S607
         "-keyout", files.key, "-out", files.certificate, "-days", "30"],
        check=True, capture_output=True,
    )  # fmt: skip
    error = refusal(settings(files))
    assert error.field.startswith("tls.")
