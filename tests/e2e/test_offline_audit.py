"""Commands beside a running service and without one: its audit has them, and stays sound."""

from __future__ import annotations

import csv
import json
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.conftest import RESIGHT

G = "/v1/galleries/default"
USER = f"operator:{pwd.getpwuid(os.geteuid()).pw_name}"


def resight(*arguments: object, environment: dict[str, str]) -> Any:
    done = subprocess.run(
        [RESIGHT, *map(str, arguments), "--json"],
        env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def changes(folder: Path) -> list[tuple[str, str, str]]:
    """Who changed what, and what came of it, as the report has it."""
    with (folder / "changes.csv").open(newline="") as file:
        return [
            (row["principal"], row["what"], row["outcome"])
            for row in csv.DictReader(file)
            if row["principal"] == USER
        ]


def test_commands_beside_a_service_stand_in_its_audit(
    start_service: Any, tmp_path: Path, catalog: dict[str, str], make_jpeg: Any
) -> None:
    data, anchors = tmp_path / "data", f"file://{tmp_path}/anchors"
    environment = {**catalog, "RESIGHT_AUDIT__ANCHOR_URL": anchors}
    with start_service(data, **environment) as service:
        with httpx.Client(base_url=f"http://{service.rest}", timeout=120) as client:
            client.post(f"{G}/cameras", json={"camera_id": "c1"}).raise_for_status()
            crop = {"camera_id": "c1", "capture_time": "2026-02-01T00:00:00Z"}
            image = {"image": ("crop.jpg", make_jpeg(1))}
            client.post(f"{G}/crops", files=image, data=crop).raise_for_status()
            key = resight(
                "keys", "create", "desk", "--scope", "search", "--data", data,
                environment=environment,
            )["api_key"]["key_id"]  # fmt: skip
            resight("keys", "revoke", key, "--data", data, environment=environment)
            resight(
                "gallery", "snapshot", "--output", tmp_path / "s", "--data", data,
                environment=environment,
            )  # fmt: skip
            client.get(f"{G}/crops").raise_for_status()
        verdict = resight("audit", "verify", "--target", service.grpc, environment=environment)
        assert (verdict["sound"], verdict["chains"], len(verdict["signers"])) == (True, 4, 1)
        resight(
            "audit", "report", "--target", service.grpc, "--csv", tmp_path / "asked",
            environment=environment,
        )  # fmt: skip
        assert service.stop() == 0
    done = [
        (USER, "AdminService/CreateApiKey", "OK"),
        (USER, "AdminService/RevokeApiKey", "OK"),
        (USER, "command/snapshot", "OK"),
    ]
    assert changes(tmp_path / "asked") == done
    with start_service(data, **environment) as service:
        assert service.stop() == 0
    verify = ["audit", "verify", "--data", data, "--anchors", anchors]
    verdict = resight(*verify, environment=environment)
    assert (verdict["sound"], verdict["chains"], verdict["unsigned_entries"]) == (True, 5, 0)
    assert verdict["anchors"] == verdict["checkpoints"]
    resight("audit", "export", "--data", data, "--output", tmp_path / "x", environment=environment)
    lines = [json.loads(line) for line in (tmp_path / "x").read_text().splitlines()]
    began = [line["entry"] for line in lines if line["entry"]["action"] == "audit/began"]
    assert len(began) == 5
    assert not [entry for entry in began if "missing" in entry]
    for name in ("AdminService/CreateApiKey", "command/snapshot"):
        events = [each["entry"]["event"] for each in lines if each["entry"]["action"] == name]
        assert events == ["began", "ended"]

    # Restored elsewhere: what the snapshot holds of its own making has no end there.
    there = tmp_path / "there"
    resight("gallery", "restore", tmp_path / "s", "--data", there, environment={})
    resight("audit", "report", "--data", there, "--csv", tmp_path / "back", environment={})
    assert changes(tmp_path / "back") == [*done[:2], (USER, "command/restore", "OK")]
    with (tmp_path / "back" / "unfinished.csv").open(newline="") as file:
        assert [row["what"] for row in csv.DictReader(file)] == ["command/snapshot"]
    with start_service(there) as service:
        verdict = resight("audit", "verify", "--target", service.grpc, environment={})
        assert verdict["sound"]
