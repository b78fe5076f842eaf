"""Whether weights and memories are numbers still, before they are written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["first_not_finite"]


def first_not_finite(held: Mapping[str, Any]) -> str | None:
    """Dotted name of the first tensor in ``held`` that has NaN or an infinity; None without one.

    Args:
        held: Tensors, and mappings of them, by name; anything else is passed over.
    """
    for name, value in _tensors(held, ""):
        # NaN is the least and the largest of whatever holds it, so that no mask as large is made.
        low, high = torch.aminmax(value)
        if not (math.isfinite(low) and math.isfinite(high)):
            return name
    return None


def _tensors(held: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in held.items():
        if isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            yield prefix + name, value
