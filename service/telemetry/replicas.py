"""Processes over one catalog."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from service.telemetry.registry import REGISTRY, SECONDS

__all__ = ["REPLICAS_LIVE", "REPLICA_FOLLOWS", "REPLICA_HEARTBEATS", "REPLICA_LAG"]

REPLICAS_LIVE = Gauge(
    "resight_replicas_live",
    "Processes that serve this catalog, this one included.",
    registry=REGISTRY,
)
REPLICA_LAG = Histogram(
    "resight_replica_lag_seconds",
    "Time from a change's entry in the log to its being searchable in this process, when the log "
    "had to be followed; the oldest change of each batch, by the database's clock.",
    buckets=SECONDS,
    registry=REGISTRY,
)
REPLICA_FOLLOWS = Counter(
    "resight_replica_follows",
    "Times the log of a gallery was followed (applied, failed).",
    ("outcome",),
    registry=REGISTRY,
)
REPLICA_HEARTBEATS = Counter(
    "resight_replica_heartbeats",
    "Heartbeats of this process (stored, failed).",
    ("outcome",),
    registry=REGISTRY,
)
