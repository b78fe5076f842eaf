"""Moving averages of unit vectors, updated for every sample of a batch in order.

For sample b with slot s = slots[b], in the order of the batch:

    v_s <- normalise(m v_s + (1 - m) f_b)

Slots are independent of one another, so all first occurrences are updated together, then all
second ones, and so on: the same arithmetic as the literal loop, in as many steps as the most
frequent slot has samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["occurrence", "update_in_order"]


def occurrence(slots: Tensor) -> Tensor:
    """How many earlier entries of ``slots`` (B,) equal each entry; (B,) int64."""
    order = torch.argsort(slots, stable=True)
    ranked = slots[order]
    positions = torch.arange(len(slots), device=slots.device)
    starts = torch.searchsorted(ranked, ranked, side="left")
    result = torch.empty_like(positions)
    result[order] = positions - starts
    return result


def update_in_order(bank: Tensor, slots: Tensor, features: Tensor, *, momentum: float) -> None:
    """Updates ``bank`` (S, D) in place.

    Args:
        slots: (B,) int64 rows of ``bank``; may repeat.
        features: (B, D) unit vectors.
        momentum: m, the weight of the old value.
    """
    turns = occurrence(slots)
    for turn in range(int(turns.max()) + 1 if len(slots) else 0):
        chosen = turns == turn
        rows = slots[chosen]
        mixed = momentum * bank[rows] + (1.0 - momentum) * features[chosen]
        bank[rows] = functional.normalize(mixed, dim=1)
