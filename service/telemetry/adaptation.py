"""Nightly runs."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from service.telemetry.registry import REGISTRY

__all__ = [
    "ADAPTATION_CROPS",
    "ADAPTATION_LAST_SUCCESS",
    "ADAPTATION_LEASE_HELD",
    "ADAPTATION_RUNS",
    "ADAPTATION_STREAMED",
]

ADAPTATION_RUNS = Counter(
    "resight_adaptation_runs",
    "Adaptation runs that ended (succeeded, refused, skipped, failed, abandoned).",
    ("gallery", "outcome"),
    registry=REGISTRY,
)
ADAPTATION_LEASE_HELD = Gauge(
    "resight_adaptation_lease_held",
    "1 while a run holds the gallery's lease and it has not expired.",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_LAST_SUCCESS = Gauge(
    "resight_adaptation_last_success_timestamp_seconds",
    "When the last run that registered a candidate ended; absent until one has.",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_CROPS = Counter(
    "resight_adaptation_crops_used",
    "Crops used by runs that succeeded, new ones and older ones for replay.",
    ("gallery", "use"),
    registry=REGISTRY,
)
ADAPTATION_STREAMED = Counter(
    "resight_adaptation_crops_streamed",
    "Crops a run asked for (sent, image_missing, image_damaged).",
    ("outcome",),
    registry=REGISTRY,
)
