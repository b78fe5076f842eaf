"""The engine with a network small enough for a second: labels, resumption, averaging, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapt.data.augmentation import Normalisation
from adapt.data.cache import build_cache
from adapt.data.cameras import camera_codes
from adapt.methods.method import Features
from adapt.methods.registry import create_method
from adapt.report.summary import RunSummary
from adapt.training import randomness
from adapt.training.batch_norm import group_batch_norms
from adapt.training.checkpoint import Identity, network_digest
from adapt.training.config import RunConfig
from adapt.training.device import Precision
from adapt.training.engine import Engine, Workload
from adapt.training.extraction import PartHead, extract
from adapt.training.step import TrainingStep
from adapt.training.views import Views
from resight.crops import Preprocessing, open_source
from resight.errors import BundleCorrupt, FailedPrecondition

CPU = torch.device("cpu")
SMALL = {
    "height": 32, "width": 16, "p": 4, "k": 4, "epochs": 3, "iterations": 4, "k1": 8, "k2": 3,
    "lr": 1e-3, "device": "cpu", "pad": 2, "threads": 1,
}  # fmt: skip
MakeCrops = Callable[..., Path]


class Tiny(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=4), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Dropout(0.1),
            nn.Linear(2 * width, 24), nn.BatchNorm1d(24),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.body(images)
        return result


@dataclass
class Bench:
    """Builds engines over the same crops."""

    folder: Path
    tmp_path: Path

    def engine(self, *, name: str = "a", network_width: int = 16, **settings: object) -> Engine:
        config = RunConfig(**(SMALL | settings))  # type: ignore[arg-type]
        crops = open_source(self.folder).scan(check="header").crops
        cache = build_cache(crops, Preprocessing(32, 16), self.tmp_path / "cache")
        cameras = camera_codes(cache.crops, ignore=config.ignore_cameras).codes
        randomness.seed_everything(config.seed)
        model = Tiny(network_width)
        identity = Identity(config.model_dump(mode="json"), network_digest(model), cache.key)
        group_batch_norms(model, config.bn_group)
        normalise = Normalisation((0.5,) * 3, (0.25,) * 3)

        def extractor(network: nn.Module, parts: PartHead | None = None) -> Features:
            return extract(
                network,
                cache,
                normalise,
                device=CPU,
                batch=16,
                precision=Precision("fp32", CPU),
                parts=parts,
            )

        return Engine(
            model,
            create_method(config, cameras, CPU),
            config,
            Workload(cache, cameras, normalise, extractor, config.iterations or 1, CPU),
            checkpoint=self.tmp_path / f"{name}.pt",
            identity=identity,
            summary=RunSummary(config.method, "test"),
        )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for one another's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bench(make_crops: MakeCrops, tmp_path: Path) -> Bench:
    return Bench(make_crops(), tmp_path)


def weights(engine: Engine) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in engine.encoder.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


class StopAfterEpoch(Exception):
    pass


def interrupted(engine: Engine, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save = engine._save

    def save_then_stop() -> None:
        save()
        if engine.completed == epochs:
            raise StopAfterEpoch

    monkeypatch.setattr(engine, "_save", save_then_stop)
    with pytest.raises(StopAfterEpoch):
        engine.run()


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "cluster-contrast"},
        {"method": "cluster-contrast", "ema": 0.9, "bn_group": 8, "schedule": "cosine"},
        {"method": "cluster-contrast", "cluster_contrast": {"memory_update": "hard"}},
        {"method": "spcl", "features": "memory", "momentum": 0.2},
        {"method": "spcl", "features": "re-extract", "freeze_bn": True},
        {"method": "spcl", "teacher": {"weight": 0.5, "decay": 0.9, "triplet": 1.0}},
    ],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    bench: Bench, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench.engine(name="whole", **settings)
    start = weights(whole)
    whole.run()
    assert not same(start, weights(whole))
    interrupted(bench.engine(name="cut", **settings), 1, monkeypatch)
    randomness.seed_everything(987)
    resumed = bench.engine(name="cut", **settings)
    torch.rand(7)
    resumed.resume()
    assert resumed.completed == 1
    resumed.run()
    assert same(weights(whole), weights(resumed))
    assert np.array_equal(whole.labels, resumed.labels)
    ours = [(e.clusters, e.outliers, e.loss, e.lr, e.extra) for e in whole.summary.epochs]
    theirs = [(e.clusters, e.outliers, e.loss, e.lr, e.extra) for e in resumed.summary.epochs]
    assert ours == theirs


def test_a_stopped_run_ends_with_a_whole_epoch_from_which_it_goes_on(bench: Bench) -> None:
    whole = bench.engine(name="whole", epochs=4)
    whole.run()
    told: list[float] = []

    def after_two(seconds: float) -> bool:
        told.append(seconds)
        return len(told) == 2

    stopped = bench.engine(name="cut", epochs=4)
    stopped.run(after_two)
    assert stopped.completed == len(stopped.summary.epochs) == 2
    assert told == [sum(epoch.seconds.values()) for epoch in stopped.summary.epochs]
    assert "stopped after epoch 2: 2 were left to do" in stopped.summary.warnings
    resumed = bench.engine(name="cut", epochs=4)
    resumed.resume()
    resumed.run(lambda _: False)
    assert same(weights(whole), weights(resumed))


def test_nobody_is_asked_after_the_last_epoch(bench: Bench) -> None:
    engine = bench.engine(epochs=1)
    engine.run(lambda _: pytest.fail("asked"))
    assert engine.completed == 1
    assert not engine.summary.warnings


def test_theta_is_fixed_at_the_first_epoch_and_survives(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"method": "spcl", "features": "memory"}
    interrupted(bench.engine(name="cut", **settings), 1, monkeypatch)
    checkpoint = bench.tmp_path / "cut.pt"
    state = torch.load(checkpoint, weights_only=True)
    assert state["method"]["theta"] == state["summary"]["epochs"][0]["extra"]["theta"] != 0.123
    state["method"]["theta"] = 0.123  # no epoch would come to it by itself
    torch.save(state, checkpoint)
    resumed = bench.engine(name="cut", **settings)
    resumed.resume()
    resumed.run()
    assert [epoch.extra["theta"] for epoch in resumed.summary.epochs[1:]] == [0.123] * 2


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"lr": 2e-3}, "lr"), ({"network_width": 12}, "network"), ({"seed": 5}, "seed")],
)
def test_a_foreign_checkpoint_is_refused(
    bench: Bench, changed: dict[str, int], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(bench.engine(), 1, monkeypatch)
    other = bench.engine(**changed)
    with pytest.raises(FailedPrecondition, match=word) as caught:
        other.resume()
    assert caught.value.reason == "CHECKPOINT_MISMATCH"


def test_a_checkpoint_of_other_crops_is_refused(
    bench: Bench, make_crops: MakeCrops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(bench.engine(), 1, monkeypatch)
    other = Bench(make_crops(name="other", seed=3), tmp_path)
    with pytest.raises(FailedPrecondition, match="another set of crops"):
        other.engine().resume()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(bench: Bench, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(BundleCorrupt, match="not a whole checkpoint"):
        bench.engine().resume()


def test_a_pickle_bomb_is_not_run(bench: Bench, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"format": Bomb()}, tmp_path / "a.pt")
    with pytest.raises(BundleCorrupt):
        bench.engine().resume()
    assert not (tmp_path / "exploded").exists()


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


SPCL: dict[str, Any] = {"method": "spcl", "features": "memory"}
OVERFLOWS: list[dict[str, Any]] = [
    {"method": "cluster-contrast", "ema": 0.9, "bn_group": 8},
    SPCL | {"teacher": {"weight": 0.5, "second_augmentation": False}},
]


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


def test_frozen_batch_norm_keeps_its_statistics_while_weights_learn(bench: Bench) -> None:
    engine = bench.engine(freeze_bn=True)
    start = weights(engine)
    engine.run()
    end = weights(engine)
    assert torch.equal(start["body.1.running_mean"], end["body.1.running_mean"])
    assert not torch.equal(start["body.1.weight"], end["body.1.weight"])


def test_no_cluster_is_an_error_that_says_what_to_do(bench: Bench) -> None:
    with pytest.raises(FailedPrecondition, match="all are outliers") as caught:
        bench.engine(eps=0.01, min_samples=40).run()
    assert caught.value.reason == "NO_CLUSTERS"


def test_spcl_without_clusters_goes_on_with_singletons(bench: Bench) -> None:
    engine = bench.engine(method="spcl", eps=0.03, min_samples=40)
    engine.run()
    assert [epoch.clusters for epoch in engine.summary.epochs] == [0, 0, 0]
    assert any("no clusters" in warning for warning in engine.summary.warnings)


@pytest.mark.parametrize("method", ["cluster-contrast", "spcl"])
def test_identical_crops_are_an_error(make_crops: MakeCrops, tmp_path: Path, method: str) -> None:
    folder = make_crops()
    first, *others = sorted(folder.iterdir())
    for other in others:
        other.write_bytes(first.read_bytes())
    with pytest.raises(FailedPrecondition, match="single cluster") as caught:
        Bench(folder, tmp_path).engine(method=method).run()
    assert caught.value.reason == "ONE_CLUSTER"


def test_fewer_clusters_than_p_are_reported(bench: Bench) -> None:
    engine = bench.engine(p=40, k=2)
    engine.run()
    assert any("fewer than p=40" in warning for warning in engine.summary.warnings)
