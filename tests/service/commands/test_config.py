"""``resight config``: effective values, their names, no secret, and every fault once."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from service.commands.config import app
from service.settings import ServiceSettings


def test_every_setting_is_shown_with_a_name_that_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_GRPC__PORT", "9000")
    done = CliRunner().invoke(app, ["show", "--json"])
    assert done.exit_code == 0
    rows = {row["setting"]: row for row in json.loads(done.stdout)["settings"]}
    assert rows["grpc.port"]["environment"] == "RESIGHT_GRPC__PORT"
    assert rows["grpc.port"]["value"] == 9000
    assert [name for name, row in rows.items() if not row["is_default"]] == ["grpc.port"]
    sections = {name.split(".")[0] for name in rows}
    assert sections == set(ServiceSettings.model_fields)


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_DATABASE_URL", "postgresql://resight:hunter2@db/resight")
    monkeypatch.setenv("RESIGHT_BLOB_URL", "s3://key:hunter2@bucket/crops")
    for arguments in (["show"], ["show", "--json"]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0
        assert "hunter2" not in done.stdout
        assert "bucket/crops" in done.stdout


def test_a_wrong_name_is_told_once_and_beside_every_wrong_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RESIGHT_GRPC__PROT", "1")
    monkeypatch.setenv("RESIGHT_BATCHER__MAX_QUEUE", "many")
    done = CliRunner().invoke(app, ["check", "--json"])
    assert done.exit_code == 1
    told = [finding["message"] for finding in json.loads(done.stdout)["findings"]]
    assert len(told) == 2
    assert [sum(name in each for each in told) for name in ("PROT", "MAX_QUEUE")] == [1, 1]
