"""The spans of a batch: one of its own, and below each call its wait and its part of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from time import time_ns

from service.pipeline.device import Outcome
from service.tracing import spans
from service.tracing.trace import Place, here

__all__ = ["Traced", "record_batch", "traced"]

Traced = tuple[Place, int]
"""Whose image waits, and since when (ns since the epoch)."""


def traced() -> Traced | None:
    """Of an image queued now; None when its call is not traced."""
    place = here()
    return None if place is None else (place, time_ns())


def record_batch(
    waiting: Sequence[Traced | None], outcomes: Sequence[Outcome], began: int, seconds: float
) -> None:
    """Record a batch that has ended.

    Args:
        waiting: Of each image.
        outcomes: Of each image.
        began: When the encoder began (ns since the epoch).
        seconds: How long it took.
    """
    if not any(waiting):
        return
    end = began + int(seconds * 1e9)
    failures = [type(item).__name__ if isinstance(item, Exception) else "" for item in outcomes]
    places = [item and item[0] for item in waiting]
    batch = spans.batch(places, began, end, size=len(waiting), failed=sum(map(bool, failures)))
    for item, failed in zip(waiting, failures, strict=True):
        if item is not None:
            place, queued = item
            spans.interval("queue", place, queued, began)
            spans.interval(
                "embed", place, began, end, link=batch, failed=failed, batch_size=len(waiting)
            )
