"""What overflows is left out and counted, or ends the run; it is never written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adapt.training.device import Precision
from adapt.training.engine import Engine
from adapt.training.step import TrainingStep
from adapt.training.views import Views
from resight.errors import FailedPrecondition
from tests.adapt.training.small_engine import Bench, interrupted

pytestmark = pytest.mark.usefixtures("one_thread")

SPCL: dict[str, Any] = {"method": "spcl", "features": "memory"}
OVERFLOWS: list[dict[str, Any]] = [
    {"method": "cluster-contrast", "ema": 0.9, "bn_group": 8},
    SPCL | {"teacher": {"weight": 0.5, "second_augmentation": False}},
]


class Scaled(Precision):
    """Scaled as float16 is, computed in float32: CPUs have no other."""

    scale = 1024.0

    def __init__(self, precision: str, device: torch.device) -> None:
        super().__init__(precision, device)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=self.scale, growth_interval=1000)

    @property
    def name(self) -> str:
        return "float16"


def everything(engine: Engine) -> list[Tensor]:
    """All that a step moves: weights, statistics, twin, memory, moments."""
    states = [engine.model.state_dict(), engine.encoder.state_dict(), engine._method.state_dict()]
    tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    moments = engine.step.state_dict()["optimiser"]["state"].values()
    tensors += [moment[name] for moment in moments for name in ("exp_avg", "exp_avg_sq")]
    return [value.clone() for value in tensors if value.is_floating_point()]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(bench.engine(), 1, monkeypatch)
    kept = (tmp_path / "a.pt").read_bytes()
    engine = bench.engine()
    engine.resume()
    step = TrainingStep.__call__

    def poisoned(self: TrainingStep, views: Views, number: int) -> Tensor:
        return step(self, replace(views, inputs=views.inputs * math.nan), number)

    monkeypatch.setattr(TrainingStep, "__call__", poisoned)
    with pytest.raises(FailedPrecondition, match="checkpoint of epoch 1 is kept") as caught:
        engine.run()
    assert caught.value.reason == "LOSS_NOT_FINITE"
    assert (tmp_path / "a.pt").read_bytes() == kept


@pytest.mark.parametrize("settings", OVERFLOWS)
def test_a_step_that_overflows_moves_nothing_and_is_counted(
    bench: Bench, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapt.training.step.Precision", Scaled)
    engine = bench.engine(**settings)
    step = TrainingStep.__call__
    moved = []

    def poisoned(self: TrainingStep, views: Views, number: int) -> Tensor:
        before = everything(engine)
        if number in (5, 7):
            views = replace(views, inputs=views.inputs * math.inf)
        loss = step(self, views, number)
        after = everything(engine)
        same = len(before) == len(after) and all(map(torch.equal, before, after))
        moved.append(not same)
        return loss

    monkeypatch.setattr(TrainingStep, "__call__", poisoned)
    engine.run()
    assert moved == [number not in (5, 7) for number in range(12)]
    assert [epoch.extra.get("skipped_steps") for epoch in engine.summary.epochs] == [
        None,
        2.0,
        None,
    ]
    assert "epoch 2: 2 of 4 steps were left out, for float16 overflowed" in engine.summary.warnings
    assert all(math.isfinite(epoch.loss) for epoch in engine.summary.epochs)


def test_the_scale_comes_down_until_gradients_are_numbers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scaled, "scale", 2.0**127)
    monkeypatch.setattr("adapt.training.step.Precision", Scaled)
    engine = bench.engine(iterations=8)
    engine.run()
    assert engine.summary.epochs[0].extra["skipped_steps"] >= 1
    assert "skipped_steps" not in engine.summary.epochs[-1].extra


def test_an_overflow_that_no_scale_helps_ends_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapt.training.step.Precision", Scaled)
    engine = bench.engine(iterations=40)
    step = TrainingStep.__call__

    def poisoned(self: TrainingStep, views: Views, number: int) -> Tensor:
        return step(self, replace(views, inputs=views.inputs * math.inf), number)

    monkeypatch.setattr(TrainingStep, "__call__", poisoned)
    with pytest.raises(FailedPrecondition, match="iteration 11: float16 overflows") as caught:
        engine.run()
    assert caught.value.field == "precision"


@pytest.mark.parametrize(("before", "now"), [(Precision, Scaled), (Scaled, Precision)])
def test_a_scale_of_another_precision_is_left_and_said(
    bench: Bench, before: type, now: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapt.training.step.Precision", before)
    interrupted(bench.engine(), 1, monkeypatch)
    monkeypatch.setattr("adapt.training.step.Precision", now)
    resumed = bench.engine()
    resumed.resume()
    resumed.run()
    assert resumed.completed == 3
    [warning] = [text for text in resumed.summary.warnings if "resumed in" in text]
    assert "float16" in warning
    assert "float32" in warning


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9}, SPCL])
def test_what_is_no_number_after_the_last_step_is_not_written(
    bench: Bench, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(bench.engine(**settings), 1, monkeypatch)
    kept = (bench.tmp_path / "a.pt").read_bytes()
    engine = bench.engine(**settings)
    engine.resume()
    step = TrainingStep.__call__

    def diverging(self: TrainingStep, views: Views, number: int) -> Tensor:
        loss = step(self, views, number)
        if number == 7:
            vectors = engine._method.state_dict().get("vectors")
            target = engine.encoder.state_dict()["body.6.weight"] if vectors is None else vectors
            assert isinstance(target, Tensor)
            target[0, 0] = math.inf
        return loss

    monkeypatch.setattr(TrainingStep, "__call__", diverging)
    with pytest.raises(FailedPrecondition, match="not finite; the checkpoint of epoch 1 is kept"):
        engine.run()
    assert (bench.tmp_path / "a.pt").read_bytes() == kept
