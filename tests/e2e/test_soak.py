"""The soak bench at its smallest: its callers are what they say, and the service has no fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_moment_of_everything(tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    command = [
        sys.executable, "-m", "bench", "soak", "--minutes", "0.2", "--sample", "2",
        "--crops", "40", "--principals", "20", "--folder", str(tmp_path), "--output", str(output),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(output.read_text())
    assert told == json.loads(done.stdout)
    outcomes = told["outcomes"]
    expected = {
        "search by image: OK",
        "search over REST: OK",
        "ingest stream: OUTCOME_ACCEPTED",
        "wrong key: 401",
        "expired token: UNAUTHENTICATED",
        "hang up: hung up",
        "dropped stream: dropped",
    }
    assert outcomes.keys() >= expected, outcomes
    faults = [name for name in outcomes if name.endswith(("INTERNAL", "UNKNOWN", "UNAVAILABLE"))]
    assert not faults, outcomes
    for sample in told["samples"]:
        assert sample["faults"] == 0
        assert sample["rss_mb"] > 10
        assert sample["series"] > 100
    assert told["samples"][-1]["audit_entries"] > 0
