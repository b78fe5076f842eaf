"""What a whole run leaves in the bundle beside the encoder."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import json_format

from adapt.backbones.build import build_embedder
from adapt.export.settings import ExportSettings
from adapt.training.conclusion import write_bundle
from adapt.training.config import RunConfig
from adapt.training.outcome import RunOutcome
from adapt.training.run import adapt
from resight.bundle.calibration import load_calibration
from resight.bundle.golden import golden_inputs
from resight.bundle.reader import open_bundle
from resight.errors import FailedPrecondition
from resight.v1 import bundle_pb2

SETTINGS: dict[str, Any] = {
    "backbone": "timm:test_efficientnet", "init": "random", "height": 32, "width": 16, "pad": 2,
    "p": 8, "k": 4, "epochs": 1, "iterations": 3, "k1": 12, "k2": 3, "lr": 1e-3, "device": "cpu",
    "threads": 1, "extraction": "torch",
}  # fmt: skip


def _manifest(folder: Path) -> Path:
    """Tracks of one person in one camera, several people at a time."""
    start = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
    path = folder.with_suffix(".csv")
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "camera", "capture_time", "track"])
        for image in sorted(folder.iterdir()):
            person, camera, shot = image.stem.split("_")[:3]
            moment = start + timedelta(seconds=60 * (int(person) // 4) + int(shot))
            stamp = moment.isoformat().replace("+00:00", "Z")
            writer.writerow([f"{folder.name}/{image.name}", camera[:2], stamp, f"t{person}"])
    return path


def run(source: Path, output: Path, **export: Any) -> RunOutcome:
    return adapt(source, output, RunConfig(**SETTINGS, export=ExportSettings(**export)))


def test_the_bundle_has_fp16_calibration_and_a_card_that_knows(
    make_crops: Callable[..., Path], tmp_path: Path
) -> None:
    source = _manifest(make_crops(identities=40, each=8, cameras=2, noise=30))
    outcome = run(source, tmp_path / "run")
    bundle = open_bundle(outcome.directory.bundle)
    half = bundle.file("encoder.fp16.onnx")
    session = onnxruntime.InferenceSession(str(half), providers=["CPUExecutionProvider"])
    images = golden_inputs(0, 3, bundle.preprocessing)
    assert session.run(None, {"images": images})[0].shape == (3, bundle.dimension)
    assert {entry.path for entry in bundle.manifest.parity} == {"", "encoder.fp16.onnx"}
    assert bundle.manifest.rank_agreement[0].overlap >= 0.95
    fitted = bundle.manifest.calibration
    assert fitted.evidence == bundle_pb2.ScoreCalibration.EVIDENCE_TRACKLETS
    calibration = load_calibration(bundle)
    assert calibration is not None
    assert calibration.probability(0.99) > calibration.probability(0.2)
    card = bundle.file("model_card.md").read_text()
    assert "320 unlabelled crops" in card
    assert "c1 (160), c2 (160)" in card
    assert "2026-05-04 08:00" in card
    assert "Tracks: 80" in card
    assert "Clusters of the last epoch" in card
    assert "calibration error" in card
    assert "0001_c1" not in card
    settings = json_format.MessageToDict(bundle.manifest.provenance.config)
    assert settings["export"]["fp16"] is True


def test_what_is_left_out_is_warned_of_and_shipped_with_the_summary(
    make_crops: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_crops(identities=12, each=6, cameras=2)
    outcome = run(
        source, tmp_path / "run", min_overlap=1.0, min_correlation=1.0, calibration="tracklets"
    )
    bundle = open_bundle(outcome.directory.bundle)
    names = {entry.path for entry in bundle.manifest.files}
    assert "encoder.fp16.onnx" not in names
    assert not bundle.manifest.HasField("calibration")
    shipped = json.loads(bundle.file("summary.json").read_text())
    for words in ("encoder.fp16.onnx left out", "score calibration left out"):
        assert any(words in warning for warning in outcome.summary.warnings)
        assert any(words in warning for warning in shipped["warnings"])
        assert words in bundle.file("model_card.md").read_text()
    assert shipped["complete"] is True


def test_an_encoder_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    config = RunConfig(**SETTINGS)
    encoder = build_embedder(config.backbone, init="random", image_size=(32, 16))
    parameter = next(iter(encoder.parameters()))
    parameter.data[0] = math.nan
    nothing: Any = None
    with pytest.raises(FailedPrecondition, match="not finite: no bundle is written"):
        write_bundle(
            encoder, config, nothing, output=tmp_path / "bundle", run_id="r", parent_version="",
            graph=None, source=None, labels=np.empty(0, dtype=np.int64), files=dict, warn=print,
        )  # fmt: skip
    assert not (tmp_path / "bundle").exists()
