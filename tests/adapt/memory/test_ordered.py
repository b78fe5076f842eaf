"""The ordered update against the literal loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adapt.memory.ordered import occurrence, update_in_order


def unit(rows: int, dim: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dim, generator=random), dim=1)


def test_occurrence_counts_earlier_equals() -> None:
    slots = torch.tensor([3, 1, 3, 3, 0, 1])
    assert occurrence(slots).tolist() == [0, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9])
def test_update_equals_a_loop_over_the_samples(momentum: float) -> None:
    bank, features = unit(7, 16, 0), unit(64, 16, 1)
    slots = torch.randint(7, (64,), generator=torch.Generator().manual_seed(2))
    expected = bank.clone()
    for slot, feature in zip(slots.tolist(), features, strict=True):
        mixed = momentum * expected[slot] + (1 - momentum) * feature
        expected[slot] = mixed / mixed.norm()
    update_in_order(bank, slots, features, momentum=momentum)
    torch.testing.assert_close(bank, expected, rtol=0, atol=1e-6)


def test_order_matters_and_is_kept() -> None:
    features = unit(2, 8, 3)
    forward, backward = unit(1, 8, 4), unit(1, 8, 4)
    slots = torch.zeros(2, dtype=torch.int64)
    update_in_order(forward, slots, features, momentum=0.1)
    update_in_order(backward, slots, features.flip(0), momentum=0.1)
    assert float((forward @ features[1]).squeeze()) > float((backward @ features[1]).squeeze())


def test_an_empty_batch_changes_nothing() -> None:
    bank = unit(3, 4, 5)
    before = bank.clone()
    update_in_order(bank, torch.empty(0, dtype=torch.int64), torch.empty(0, 4), momentum=0.1)
    assert torch.equal(bank, before)
