"""States of generators: taken back by each rank, and said where they cannot be."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from adapt.training import randomness
from adapt.training.ranks import Ranks

CPU = torch.device("cpu")


def draw() -> list[float]:
    numpy = float(np.random.random())  # noqa: NPY002
    return [random.random(), numpy, float(torch.rand(()))]


class Second(Ranks):
    """The second of two."""

    rank, size = 1, 2


def test_what_is_drawn_after_restoring_is_what_came_after_capturing() -> None:
    randomness.seed_everything(3)
    draw()
    state = randomness.capture_every(CPU)
    expected = draw()
    draw()
    assert randomness.restore_own(state, CPU)
    assert draw() == expected


def test_each_rank_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for seed in (5, 6):
        randomness.seed_everything(seed)
        states.append(randomness.capture(CPU))
    expected = draw()
    monkeypatch.setattr(randomness, "current", Second)
    assert randomness.restore_own(states, CPU)
    assert draw() == expected


def test_of_another_number_of_ranks_all_take_the_first_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    randomness.seed_everything(5)
    state = randomness.capture(CPU)
    expected = draw()
    monkeypatch.setattr(randomness, "current", Second)
    assert not randomness.restore_own([state], CPU)
    assert draw() == expected


def test_a_state_of_another_kind_of_device_is_not_all() -> None:
    state = randomness.capture(CPU) | {"cuda": torch.zeros(16, dtype=torch.uint8)}
    assert not randomness.restore(state, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_goes_on_drawing_as_it_did() -> None:
    gpu = torch.device("cuda", 0)
    state = randomness.capture_every(gpu)
    expected = torch.rand(5, device=gpu)
    assert randomness.restore_own(state, gpu)
    assert torch.equal(torch.rand(5, device=gpu), expected)
