"""A resumed run ends as an uninterrupted one; what cannot be resumed is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adapt.training import randomness
from resight.errors import BundleCorrupt, FailedPrecondition
from tests.adapt.training.small_engine import Bench, MakeCrops, interrupted, same, weights

pytestmark = pytest.mark.usefixtures("one_thread")


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
