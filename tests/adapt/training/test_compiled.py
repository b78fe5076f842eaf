"""Compiled training against eager training, and resumed against uninterrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt.backbones.embedder import Embedder, FeatureBackbone
from adapt.backbones.pooling import build_pooling
from adapt.report.summary import RunSummary
from adapt.training import randomness
from adapt.training.assembly import Assembly
from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet, read_crop_set
from adapt.training.directory import RunDirectory
from adapt.training.engine import Engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler"),
]
CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "height": 32, "width": 16, "p": 4, "k": 4, "epochs": 2, "iterations": 3, "k1": 8, "k2": 3,
    "lr": 1e-3, "device": "cpu", "pad": 2, "threads": 1, "extraction": "torch", "bn_group": 8,
    "extraction_batch": 20, "deterministic": True, "method": "pplr", "teacher": {"weight": 0.3},
    "pplr": {"parts": 2},
}  # fmt: skip


class Tiny(FeatureBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )

    def features(self, images: Tensor) -> Tensor:
        result: Tensor = self.body(images)
        return result

    def embed(self, pooled: Tensor) -> Tensor:
        return pooled


def tiny(config: RunConfig, device: torch.device) -> Embedder:
    torch.manual_seed(0)
    backbone = Tiny()
    return Embedder(
        backbone, build_pooling("avg"), dim=8, name="tiny", pooling_name="avg", neck="bn"
    )


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.compiler.reset()


@pytest.fixture
def crops(make_crops: Callable[..., Path], tmp_path: Path) -> CropSet:
    return read_crop_set(
        make_crops(noise=40), RunConfig(**SETTINGS), cache=tmp_path / "cache",
        skipped_csv=tmp_path / "skipped.csv", threads=1,
    )  # fmt: skip


def engine(crops: CropSet, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Engine:
    monkeypatch.setattr("adapt.training.assembly._build", tiny)
    config = RunConfig(**{**SETTINGS, **changes})
    randomness.seed_everything(1)
    folder.mkdir(exist_ok=True)
    parts = Assembly(config, crops, CPU)
    return parts.engine(RunDirectory(folder), RunSummary(config.method, "test"))


def test_compiled_training_is_eager_training_to_rounding(
    crops: CropSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = engine(crops, tmp_path / "eager", monkeypatch)
    compiled = engine(crops, tmp_path / "compiled", monkeypatch, compile=True)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for each in (eager, compiled):
        each.run()
    # One for the student and one for the teacher, whatever happens between the steps.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 2
    assert [e.labels for e in eager.summary.epochs] == [e.labels for e in compiled.summary.epochs]
    for first, second in zip(eager.summary.epochs, compiled.summary.epochs, strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-4)
    for network in ("model", "encoder"):
        state = getattr(compiled, network).state_dict()
        for name, value in getattr(eager, network).state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(state[name], value, rtol=1e-2, atol=2e-3)


def test_a_compiled_run_resumes_to_the_same_end(
    crops: CropSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine(crops, tmp_path / "whole", monkeypatch, compile=True)
    whole.run()
    cut = engine(crops, tmp_path / "cut", monkeypatch, compile=True)
    cut.run(should_stop=lambda _seconds: True)
    assert cut.completed == 1
    resumed = engine(crops, tmp_path / "cut", monkeypatch, compile=True)
    resumed.resume()
    resumed.run()
    assert resumed.summary.epochs[1].labels == whole.summary.epochs[1].labels
    state = resumed.encoder.state_dict()
    assert all(torch.equal(v, state[n]) for n, v in whole.encoder.state_dict().items())
