"""Nightly runs."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from service.telemetry.registry import REGISTRY

__all__ = [
    "ADAPTATION_CLUSTERS",
    "ADAPTATION_CROPS",
    "ADAPTATION_DURATION",
    "ADAPTATION_EXPECTED",
    "ADAPTATION_GATE_BASELINE_SCORE",
    "ADAPTATION_GATE_RESULT",
    "ADAPTATION_GATE_SCORE",
    "ADAPTATION_LAST_ATTEMPT",
    "ADAPTATION_LAST_OUTCOME",
    "ADAPTATION_LAST_SUCCESS",
    "ADAPTATION_LEASE_HELD",
    "ADAPTATION_OUTLIER_SHARE",
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
ADAPTATION_EXPECTED = Gauge(
    "resight_adaptation_expected",
    "1 for a gallery of which the settings say that it has nights (nightly.expected).",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_LAST_SUCCESS = Gauge(
    "resight_adaptation_last_success_timestamp_seconds",
    "When the last run that registered a candidate ended; absent until one has.",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_LAST_ATTEMPT = Gauge(
    "resight_adaptation_last_attempt_timestamp_seconds",
    "When the last run was started, whatever became of it; absent until one was.",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_LAST_OUTCOME = Gauge(
    "resight_adaptation_last_outcome",
    "1 for how the last run that ended did (succeeded, refused, skipped, failed, abandoned), 0 for "
    "the others; absent until one has ended.",
    ("gallery", "outcome"),
    registry=REGISTRY,
)
ADAPTATION_DURATION = Gauge(
    "resight_adaptation_duration_seconds",
    "From start to end of the last run that ended.",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_GATE_RESULT = Gauge(
    "resight_adaptation_gate_result",
    "1 for what the gate said last (passed, refused), 0 for the other; absent until it has spoken.",
    ("gallery", "verdict"),
    registry=REGISTRY,
)
ADAPTATION_GATE_SCORE = Gauge(
    "resight_adaptation_gate_score",
    "The gate's last score of a candidate against the live encoder; above 0 is better.",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_GATE_BASELINE_SCORE = Gauge(
    "resight_adaptation_gate_baseline_score",
    "The same against the frozen baseline; absent where the gate was given none.",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_CLUSTERS = Gauge(
    "resight_adaptation_clusters",
    "Clusters in the last epoch of the last run that reported any.",
    ("gallery",),
    registry=REGISTRY,
)
ADAPTATION_OUTLIER_SHARE = Gauge(
    "resight_adaptation_outlier_share",
    "Share of that run's crops that were in no cluster in its last epoch.",
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
for _outcome in ("sent", "image_missing", "image_damaged"):
    # There at 0: the missing ones of a night often come at once, and a first value is no increase.
    ADAPTATION_STREAMED.labels(_outcome)
