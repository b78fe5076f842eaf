"""Models promoted and rolled back under load on two replicas: no answer mixes two models."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import pytest

from tests.conftest import ROOT, PostgresqlServer


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_answer_is_that_of_the_model_it_names(
    kind: str, request: pytest.FixtureRequest
) -> None:
    database: Any = nullcontext("")
    if kind == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        database = server.database()
    with database as url:
        command = [sys.executable, "-m", "bench", "lifecycle", "--crops", "300", "--seconds", "2",
                   "--answers", "60"]  # fmt: skip
        told = [*command, "--postgresql", url] if url else command
        done = subprocess.run(
            told, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False
        )
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    judged = report["judgement"]
    wrong = ("mixed", "unknown_versions", "out_of_order", "incomplete", "erased", "failed")
    assert {name: judged[name] for name in wrong if judged[name]} == {}
    assert report["lost"] == 0
    assert done.returncode == 0
    assert report["replicas"] == (2 if url else 1)
    assert judged["answers"] > 50
    assert judged["matches"] > 250 * 50
    assert report["mixed_if_versions_were_exchanged"] > 0.9 * judged["matches"]
    assert report["acknowledged"] > 300
    assert report["deleted"] > 0
