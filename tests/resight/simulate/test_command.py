from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def simulate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from resight.cli import main; main()", "simulate"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_prints_one_json_object(tmp_path: Path) -> None:
    done = simulate(
        "--output", tmp_path / "site", "--identities", 4, "--cameras", 2, "--crops", 30, "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert sum(answer["crops"].values()) == 30
    assert answer["identities"]["train"] + answer["identities"]["query"] == 4
    assert len(list((tmp_path / "site").rglob("*.jpg"))) == 30


def test_too_few_crops_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = simulate("--output", tmp_path / "site", "--identities", 50, "--crops", 60)
    assert done.returncode == 1
    assert "--crops 60 is too few for 50 identities" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_text_instead_of_a_number_is_a_usage_error(tmp_path: Path) -> None:
    done = simulate("--output", tmp_path / "site", "--seed", "tuesday")
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []
