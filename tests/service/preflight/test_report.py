"""`resight config check`: every finding at once, and nothing made."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onnxruntime import get_available_providers
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from service.application.data_directory import DataDirectory
from service.catalog import schema
from service.catalog.engine import open_engine
from service.commands.config import app
from service.encoder.session import CPU, CUDA
from tests.service.tls.authority import Authority


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("RESIGHT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RESIGHT_DATA_DIR", str(tmp_path / "data"))
    for section in ("GRPC", "REST"):
        monkeypatch.setenv(f"RESIGHT_{section}__PORT", "0")


def checked(*options: str, code: int = 1) -> dict[str, list[tuple[str, str]]]:
    """Outcome and message by check."""
    done = CliRunner().invoke(app, ["check", "--json", *options])
    assert done.exit_code == code, (done.stdout, done.stderr)
    answer = json.loads(done.stdout)
    assert answer["ok"] is (code == 0)
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in answer["findings"]:
        found.setdefault(finding["check"], []).append((finding["outcome"], finding["message"]))
        assert "\n" not in finding["message"]
    return found


def failed(found: dict[str, list[tuple[str, str]]]) -> dict[str, str]:
    return {
        check: message
        for check, each in found.items()
        for outcome, message in each
        if outcome == "failed"
    }


def test_a_fresh_machine(tmp_path: Path, bundle: Path) -> None:
    found = checked("--bundle", str(bundle), code=0)
    assert found["database"] == [("ok", "there is none yet; a start makes it")]
    assert not (tmp_path / "data").exists(), "a check makes nothing"


@pytest.mark.skipif(CUDA in get_available_providers(), reason="CUDA can be had")
def test_a_device_that_is_not_there(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_ENCODER__PROVIDER", "cuda")
    assert "RESIGHT_ENCODER__FALLBACK" in failed(checked("--bundle", str(bundle)))["bundle"]
    monkeypatch.setenv("RESIGHT_ENCODER__FALLBACK", "cpu")
    told = ("warning", f"encoder.provider: runs on {CPU}")
    assert told in checked("--bundle", str(bundle), code=0)["bundle"]


def test_everything_that_is_wrong_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = Authority(tmp_path / "ca")
    expired = ca.issue(days=-1, ago=9)
    (tmp_path / "data").write_text("in the way")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for name, value in {
            "TLS__CERTIFICATE_FILE": expired.certificate,
            "TLS__KEY_FILE": expired.key,
            "GRPC__PORT": taken.getsockname()[1],
            "ACCESS__BOOTSTRAP_KEY_FILE": tmp_path / "gone",
            "AUDIT__ANCHOR_URL": "nowhere://anchors",
            "DATABASE_URL": "postgresql+psycopg://u:hunter2@127.0.0.1:1/resight",
            "BLOB_URL": "nowhere://blobs",
            "INDEX__BACKEND": "milvus",
        }.items():
            monkeypatch.setenv(f"RESIGHT_{name}", str(value))
        faults = failed(checked())
    told = {
        "tls": "expired",
        "ports": "grpc.port",
        "access": "RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE",
        "audit": "audit.anchor_url",
        "bundle": "RESIGHT_BUNDLE",
        "data_dir": "data_dir",
        "database": "does not answer",
        "blobs": "blob_url",
        "index": "RESIGHT_MILVUS__URI",
    }
    assert faults.keys() == told.keys()
    for check, part in told.items():
        assert part in faults[check]
    assert "hunter2" not in str(faults)


def test_every_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_DATADIR", "x")
    monkeypatch.setenv("RESIGHT_GRPC__PRT", "x")
    monkeypatch.setenv("RESIGHT_GRPC__PORT", "many")
    monkeypatch.setenv("RESIGHT_LIMITS__MAX_TOP_K", "0")
    found = checked()
    assert found.keys() == {"settings"}, "nothing else can be looked at"
    messages = " ".join(message for _, message in found["settings"])
    for name in ("RESIGHT_DATADIR", "RESIGHT_GRPC__PRT", "grpc.port", "limits.max_top_k"):
        assert name in messages


def test_a_running_service_is_left_alone(tmp_path: Path, bundle: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    try:
        found = failed(checked("--bundle", str(bundle)))
        assert found.keys() == {"data_dir"}
        assert f"process {os.getpid()}" in found["data_dir"]
        found = checked("--bundle", str(bundle), "--running", code=0)
        assert found["data_dir"] == found["ports"] == [("skipped", "a service runs with it")]
    finally:
        directory.close()


@pytest.mark.parametrize("days", [13, 15])
def test_a_certificate_that_expires_soon(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    files = Authority(tmp_path / "ca").issue(days=days)
    monkeypatch.setenv("RESIGHT_TLS__CERTIFICATE_FILE", str(files.certificate))
    monkeypatch.setenv("RESIGHT_TLS__KEY_FILE", str(files.key))
    ((outcome, message),) = checked("--bundle", str(bundle), code=0)["tls"]
    assert outcome == ("warning" if days == 13 else "ok")
    assert "expires on" in message


@pytest.fixture
def upgraded(database_url: str) -> Iterator[Any]:
    engine = open_engine(database_url, pool_size=1, writer=True)
    schema.upgrade(engine)
    yield engine
    engine.dispose()


def test_schemas(
    upgraded: Any, database_url: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_DATABASE_URL", database_url)
    found = checked("--bundle", str(bundle), code=0)
    assert found["database"] == [("ok", f"schema {schema.head_revision()}")]
    with upgraded.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num='0004'"))
    if upgraded.dialect.name == "sqlite":
        assert "a start upgrades it" in checked("--bundle", str(bundle), code=0)["database"][0][1]
    else:
        assert "resight db upgrade" in failed(checked("--bundle", str(bundle)))["database"]
    with upgraded.begin() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num='9999', compatible_from='9999'")
        )
    assert "newer" in failed(checked("--bundle", str(bundle)))["database"]


def test_a_catalog_is_not_changed_by_looking(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "old.sqlite"
    engine = create_engine(f"sqlite:///{place}")
    with engine.begin() as connection:
        schema.upgrade_to(connection, "0003")
    engine.dispose()
    monkeypatch.setenv("RESIGHT_DATABASE_URL", f"sqlite:///{place}")
    found = checked("--bundle", str(bundle), code=0)
    assert "schema 0003; a start upgrades it" in found["database"][0][1]
    engine = create_engine(f"sqlite:///{place}")
    assert schema.current_revision(engine) == "0003"
    engine.dispose()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.e2e.conftest import tiny_bundle_at

    return tiny_bundle_at(tmp_path_factory.mktemp("bundle") / "tiny")
