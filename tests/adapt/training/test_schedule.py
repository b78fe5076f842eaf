"""Learning rate and iterations."""

from __future__ import annotations

import pytest

from adapt.training.config import RunConfig
from adapt.training.resolve import resolve
from adapt.training.schedule import iterations_per_epoch, learning_rate


def test_staircase() -> None:
    config = RunConfig(lr=1.0, schedule="step", step_epochs=20, epochs=50)
    rates = [learning_rate(config, epoch * 10, 10) for epoch in (0, 19, 20, 39, 40, 49)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_falls_to_nothing() -> None:
    config = RunConfig(lr=1.0, schedule="cosine", epochs=4)
    assert learning_rate(config, 0, 10) == 1.0
    assert learning_rate(config, 20, 10) == pytest.approx(0.5)
    assert 0 < learning_rate(config, 39, 10) < 0.01


def test_warm_up_rises_to_the_rate() -> None:
    config = RunConfig(lr=1.0, schedule="constant", warmup_iterations=5)
    assert [learning_rate(config, s, 10) for s in range(6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1, 1]
    )


def test_warm_up_may_be_counted_in_epochs() -> None:
    config = RunConfig(lr=1.0, schedule="constant", warmup_epochs=2, warmup_iterations=3)
    assert [learning_rate(config, s, 5) for s in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("method", "crops", "iterations"),
    [("cluster-contrast", 12_936, 203), ("cluster-contrast", 32_621, 400),
     ("cluster-contrast", 800, 13), ("spcl", 12_936, 405), ("spcl", 32_621, 800),
     ("pplr", 12_936, 400), ("pplr", 32_621, 400), ("cap", 12_936, 405), ("cap", 32_621, 1020)],
)  # fmt: skip
def test_iterations_follow_the_crops(method: str, crops: int, iterations: int) -> None:
    config = resolve(options={"preset": "published", "method": method})
    assert iterations_per_epoch(config, crops) == iterations


def test_iterations_named_are_iterations_given() -> None:
    assert iterations_per_epoch(RunConfig(iterations=7), 10**6) == 7
