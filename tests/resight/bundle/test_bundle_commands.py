"""``resight bundle`` as a person or a script runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resight.bundle import Bundle, open_bundle
from resight.bundle.attachments import attach
from resight.bundle.half_check import half_attachment
from resight.cli import main
from resight.v1 import bundle_pb2

IMPORT = [
    "--height",
    "16",
    "--width",
    "8",
    "--mean",
    "0.485,0.456,0.406",
    "--std",
    "0.229 0.224 0.225",
]


@dataclass
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def resight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs the real command line in this process."""

    def call(*arguments: str | Path, **environment: str) -> Ended:
        monkeypatch.setenv("COLUMNS", "200")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["resight", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        written = capsys.readouterr()
        return Ended(int(stop.value.code or 0), written.out, written.err)

    return call


@pytest.fixture
def model(linear: Callable[..., Any], tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear().model)
    return path


def test_import_inspect_and_verify_agree(
    resight: Callable[..., Ended], model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "b"
    done = resight("bundle", "import", model, *IMPORT, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["model_version"] == open_bundle(output).model_version
    assert [entry["batch_size"] for entry in made["parity"]] == [1, 2, 7]
    assert all(entry["min_cosine"] > 0.9999 for entry in made["parity"])
    seen = json.loads(resight("bundle", "inspect", output, "--json").stdout)
    assert seen["model_version"] == made["model_version"]
    assert seen["manifest"]["provenance"]["config"]["std"] == [0.229, 0.224, 0.225]
    verified = json.loads(resight("bundle", "verify", output, "--json").stdout)
    assert verified["verified"] is True
    assert verified["golden_min_cosine"] > 0.9999
    assert made["model_version"] in resight("bundle", "inspect", output).stdout


def test_options_have_environment_twins(
    resight: Callable[..., Ended], model: Path, tmp_path: Path
) -> None:
    done = resight(
        "bundle", "import", model, "--width", "8", "--json",
        RESIGHT_BUNDLE_IMPORT_HEIGHT="16",
        RESIGHT_BUNDLE_IMPORT_WIDTH="9",
        RESIGHT_BUNDLE_IMPORT_MEAN="127",
        RESIGHT_BUNDLE_IMPORT_STD="128",
        RESIGHT_BUNDLE_IMPORT_SCALE="1",
        RESIGHT_BUNDLE_IMPORT_OUTPUT=str(tmp_path / "b"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = open_bundle(tmp_path / "b").manifest.provenance.config
    assert (config["scale"], list(config["mean"]), config["width"]) == (1, [127] * 3, 8)


def test_verify_names_the_damaged_file(
    resight: Callable[..., Ended], write: Callable[..., Bundle], tmp_path: Path
) -> None:
    path = write(tmp_path / "b").encoder_path
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(damaged)
    for command in ("verify", "inspect"):
        done = resight("bundle", command, tmp_path / "b", "--json")
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: bundle file encoder.onnx")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (["--mean", "red"], 2, "not one or three numbers"),
        (["--mean", "1,2"], 2, "not one or three numbers"),
        (["--scale", "1/0"], 2, "not one number"),
        (["--height", "17"], 1, "differ at H"),
        (["--height", "0"], 2, "height"),
        (["--layout", "CHW"], 2, "NCHW"),
        (["--output-name", "absent"], 1, "among the outputs"),
    ],
)
def test_wrong_options_are_told_apart_from_failures(
    resight: Callable[..., Ended],
    model: Path,
    tmp_path: Path,
    changes: list[str],
    code: int,
    message: str,
) -> None:
    done = resight("bundle", "import", model, *IMPORT, "--output", tmp_path / "b", *changes)
    assert done.returncode == code
    assert message in done.stderr
    assert not (tmp_path / "b").exists()


def test_overwriting_is_asked_for(
    resight: Callable[..., Ended], model: Path, tmp_path: Path
) -> None:
    arguments = ["bundle", "import", model, *IMPORT, "--output", tmp_path / "b"]
    assert resight(*arguments).returncode == 0
    again = resight(*arguments)
    assert (again.returncode, "exists" in again.stderr) == (1, True)
    assert resight(*arguments, "--overwrite").returncode == 0


def test_an_own_model_card_is_kept_and_the_blank_one_is_announced(
    resight: Callable[..., Ended], model: Path, tmp_path: Path
) -> None:
    card = tmp_path / "card.md"
    card.write_text("# Ours\nBänke\n", encoding="utf-8")
    arguments = ["bundle", "import", model, *IMPORT, "--output"]
    done = resight(*arguments, tmp_path / "a", "--model-card", card)
    assert "--model-card" not in done.stderr
    assert open_bundle(tmp_path / "a").file("model_card.md").read_text("utf-8") == card.read_text(
        "utf-8"
    )
    assert "--model-card" in resight(*arguments, tmp_path / "b").stderr
    done = resight(*arguments, tmp_path / "c", "--model-card", tmp_path / "absent.md")
    assert (done.returncode, "model_card: no file" in done.stderr) == (1, True)


def test_attachments_are_shown_and_the_half_is_verified(
    resight: Callable[..., Ended], write: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = write(tmp_path / "b")
    half = half_attachment(
        bundle.encoder_path.read_bytes(), bundle.preprocessing, np.empty((0, 16, 8, 3), np.uint8)
    )
    half.calibration = bundle_pb2.ScoreCalibration(
        evidence=bundle_pb2.ScoreCalibration.EVIDENCE_TRACKLETS,
        expected_calibration_error=0.0314,
        prior=0.01,
    )
    half.engines.append(bundle_pb2.Engine(path="engines/a.plan", compute_capability="8.9"))
    half.files["engines/a.plan"] = b"plan"
    attach(tmp_path / "b", half)
    shown = resight("bundle", "inspect", tmp_path / "b").stdout
    assert "on tracklets, error 0.0314" in shown
    assert "engines/a.plan" in shown
    assert "encoder.fp16.onnx, batch 7" in shown
    verified = json.loads(resight("bundle", "verify", tmp_path / "b", "--json").stdout)
    assert verified["fp16_min_cosine"] > 0.999
