"""Encoders, fillings and mirrored searches."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from service.telemetry.registry import REGISTRY, SECONDS, SHARES

__all__ = [
    "MIRRORED",
    "MIRROR_DURATION",
    "MIRROR_OVERLAP",
    "MIRROR_SCORE",
    "MODEL_CHANGES",
    "MODEL_FILLED",
    "MODEL_INFO",
    "MODEL_LOAD_DURATION",
    "PROVIDER_FALLBACK",
]

MODEL_INFO = Gauge(
    "resight_model_info",
    "The live encoder; always 1.",
    ("model_version", "precision", "provider"),
    registry=REGISTRY,
)
MODEL_LOAD_DURATION = Gauge(
    "resight_model_load_duration_seconds",
    "Time to verify, load and warm up the live encoder.",
    registry=REGISTRY,
)
MODEL_FILLED = Counter(
    "resight_model_filled_crops",
    "Crops that a shadow was filled with, and those that have no vector of it, by why.",
    ("gallery", "outcome"),
    registry=REGISTRY,
)
MODEL_CHANGES = Counter(
    "resight_model_changes",
    "Changes of a model's state by this process (stage, promote, rollback, retire; by caller or "
    "policy).",
    ("gallery", "change", "actor"),
    registry=REGISTRY,
)
MIRRORED = Counter(
    "resight_mirrored_searches",
    "Searches asked of a second model in the background (answered, dropped: the queue was full, "
    "failed).",
    ("gallery", "outcome"),
    registry=REGISTRY,
)
MIRROR_OVERLAP = Histogram(
    "resight_mirror_overlap",
    "Share of the first ten matches that the live model and a second one (role: shadow, previous) "
    "have in common.",
    ("gallery", "role"),
    buckets=SHARES,
    registry=REGISTRY,
)
MIRROR_SCORE = Histogram(
    "resight_mirror_best_score",
    "Score of the best match of a mirrored search, by role of the model (live, shadow, previous).",
    ("gallery", "role"),
    buckets=SHARES,
    registry=REGISTRY,
)
MIRROR_DURATION = Histogram(
    "resight_mirror_duration_seconds",
    "Time of a mirrored search from its turn to its matches, by role of the model (shadow, "
    "previous).",
    ("gallery", "role"),
    buckets=SECONDS,
    registry=REGISTRY,
)
PROVIDER_FALLBACK = Counter(
    "resight_provider_fallback",
    "Encoders that run on another execution provider than the one asked for, because it could not "
    "be used when they were loaded or failed later (encoder.fallback).",
    ("asked", "got"),
    registry=REGISTRY,
)
