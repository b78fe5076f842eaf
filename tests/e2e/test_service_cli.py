"""The client commands and the published example, against a real service."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from resight.cli import app
from resight.client import connection

RESIGHT = Path(sys.executable).with_name("resight")
ROOT = Path(__file__).resolve().parents[2]


def resight(*arguments: str, code: int = 0) -> Any:
    """Runs a command in this process, to save imports; the first test runs a real one."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.stderr
    if code:
        return done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, make_jpeg: Callable[..., bytes]) -> Path:
    """Ten crops of two cameras, one of them not an image inside, and their manifest."""
    folder = tmp_path_factory.mktemp("source")
    with (folder / "crops.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "camera", "capture_time", "track"])
        for number in range(10):
            name = f"{number}.jpg"
            data = make_jpeg(900 + number)
            (folder / name).write_bytes(data[:-100] if number == 9 else data)
            time = f"2026-04-01T10:{number:02d}:00Z"
            writer.writerow([name, ("c1", "c2")[number % 2], time, f"t{number}"])
    return folder / "crops.csv"


def test_ingest_search_and_cameras(service: Any, manifest: Path) -> None:
    at = ("--target", service.grpc, "--gallery", "cli", "--json")
    command = [str(RESIGHT), "ingest", str(manifest), "--register-cameras", *at]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert (report["accepted"], report["duplicate"]) == (9, 0)
    assert report["rejected_by_reason"] == {"UNDECODABLE_IMAGE": 1}
    again = resight("ingest", str(manifest), *at)
    assert (again["accepted"], again["duplicate"]) == (0, 9)
    cameras = resight("cameras", "list", *at)["cameras"]
    assert [camera["camera_id"] for camera in cameras] == ["c1", "c2"]
    query = str(manifest.parent / "4.jpg")
    found = resight("search", query, "--top-k", "3", *at)
    assert found["matches"][0]["capture_time"] == "2026-04-01T10:04:00Z"
    assert [match["rank"] for match in found["matches"]] == [1, 2, 3]
    filtered = resight(
        "search", query, "--exclude-camera", "c1", "--since", "2026-04-01T10:03:00Z",
        "--until", "2026-04-01T10:07:00Z", *at,
    )  # fmt: skip
    times = sorted(match["capture_time"] for match in filtered["matches"])
    assert times == ["2026-04-01T10:03:00Z", "2026-04-01T10:05:00Z"]


def test_registering_leaves_a_camera_that_was_named_before_as_it_is(
    service: Any, manifest: Path, tmp_path: Path
) -> None:
    at = ("--target", service.grpc, "--gallery", "cli-named")
    resight("cameras", "add", "c2", "--name", "North door", "--zone", "lobby", *at)
    assert "c2" in resight("cameras", "add", "c2", *at, code=1), "the service refuses another one"
    report = resight("ingest", str(manifest), "--register-cameras", *at, "--json")
    assert (report["accepted"], report["rejected"]) == (9, 1)
    cameras = resight("cameras", "list", *at, "--json")["cameras"]
    assert [(c["camera_id"], c["display_name"], c["zone"]) for c in cameras] == [
        ("c1", "", ""), ("c2", "North door", "lobby"),
    ]  # fmt: skip
    # Only that is passed over: a camera that the service refuses ends the command.
    (tmp_path / "1.jpg").write_bytes((manifest.parent / "1.jpg").read_bytes())
    (tmp_path / "bad.csv").write_text(
        "path,camera,capture_time\n1.jpg,no/id,2026-04-01T10:00:00Z\n"
    )
    assert "camera_id" in resight(
        "ingest", str(tmp_path / "bad.csv"), "--register-cameras", *at, code=1
    )


def test_mistakes_are_answered_with_the_fix(
    service: Any,
    manifest: Path,
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = ("--target", service.grpc, "--gallery", "cli-mistakes")
    (tmp_path / "0001_c1s1_000050_00.jpg").write_bytes(make_jpeg(1))
    assert "--capture-time-from" in resight("ingest", str(tmp_path), *at, code=1)
    frames = ("--capture-time-from", "frame", "--assume-start", "2026-01-01T00:00:00Z")
    resight("cameras", "add", "other", *at)
    assert "register" in resight("ingest", str(tmp_path), *frames, *at, code=1)
    done = resight("ingest", str(tmp_path), *frames, "--register-cameras", *at, "--json")
    assert done["accepted"] == 1
    resight("ingest", str(tmp_path), "--assume-start", "yesterday", *at, code=2)
    message = resight("search", str(manifest.parent / "9.jpg"), *at, code=1)
    assert message.startswith("error: image")
    query = str(manifest.parent / "1.jpg")
    assert "top_k" in resight("search", query, "--top-k", "0", *at, code=1)
    with monkeypatch.context() as patch:
        patch.setattr(connection, "_CONNECT_SECONDS", 0.2)
        assert "resight serve" in resight("search", query, "--target", "127.0.0.1:1", code=1)
    assert "append Z" in resight("search", query, "--since", "2026-04-01T10:00:00", *at, code=2)
    assert "--until" in resight("search", query, "--until", "later", *at, code=2)


def test_the_example_of_the_api_page_runs(
    service: Any, manifest: Path, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    resight("ingest", str(manifest), "--register-cameras", "--target", service.grpc)
    (tmp_path / "query.jpg").write_bytes(make_jpeg(903))
    example = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    assert len(example) == 1
    code = example[0].replace("127.0.0.1:7443", service.grpc)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert re.match(r"1\.000 c2 2026-04-01T10:03:00Z [0-9a-f-]{36}", lines[0])
