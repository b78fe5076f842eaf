"""Whatever loads an encoder tells nobody about it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOADS = "import {first}; import onnxruntime; onnxruntime.get_available_providers()"


def left_behind(folder: Path, first: str) -> list[str]:
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(folder))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ORT_")} | places
    folder.mkdir()
    # What a continuous-integration system sets turns it off, too.
    environment = {k: v for k, v in environment.items() if k not in ("CI", "GITHUB_ACTIONS")}
    command = [sys.executable, "-c", LOADS.format(first=first)]
    subprocess.run(command, check=True, env=environment, timeout=240)
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_onnx_runtime_keeps_no_device_id(tmp_path: Path) -> None:
    if not left_behind(tmp_path / "without", "os"):
        pytest.skip("this build of ONNX Runtime has no telemetry")
    assert left_behind(tmp_path / "with", "resight") == []
