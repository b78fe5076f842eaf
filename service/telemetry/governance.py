"""Retention and erasure."""

from __future__ import annotations

from prometheus_client import Counter

from service.telemetry.registry import REGISTRY

__all__ = ["ERASURES_PENDING", "ERASURES_REPLAYED", "RETENTION_DROPPED"]

ERASURES_REPLAYED = Counter(
    "resight_erasures_replayed",
    "Erased crops that a restored catalog had brought back, erased again at start.",
    registry=REGISTRY,
)
RETENTION_DROPPED = Counter(
    "resight_retention_dropped",
    "Crops dropped because they were captured more than retention.days ago.",
    ("gallery",),
    registry=REGISTRY,
)
ERASURES_PENDING = Counter(
    "resight_erasures_pending",
    "Erasures answered while a live replica had yet to apply them; the answer names it.",
    registry=REGISTRY,
)
