"""Cameras that see otherwise than they did; the equations are in service/domain/drift.py."""

from __future__ import annotations

from prometheus_client import Gauge

from service.telemetry.registry import REGISTRY

__all__ = [
    "CAMERA_LOW_MATCH_SHARE",
    "CAMERA_SHIFT",
    "DRIFT_CAMERAS",
    "DRIFT_CAMERAS_UNLABELLED",
    "DRIFT_LOW_MATCH_SHARE",
    "DRIFT_SHIFT",
]

DRIFT_SHIFT = Gauge(
    "resight_drift_shift",
    "How far the mean embedding of a camera's newest crops has moved from that of its first, in "
    "units of their spread, chance taken off; over the cameras (quantile 0.5, 0.9, 1: the worst).",
    ("gallery", "quantile"),
    registry=REGISTRY,
)
DRIFT_LOW_MATCH_SHARE = Gauge(
    "resight_drift_low_match_share",
    "Share of a camera's newest crops that are less like its first ones than 95 in 100 were at "
    "first; over the cameras (quantile 0.5, 0.9, 1: the worst).",
    ("gallery", "quantile"),
    registry=REGISTRY,
)
DRIFT_CAMERAS = Gauge(
    "resight_drift_cameras",
    "Cameras by whether enough of their crops are stored to measure drift (measured, too_few).",
    ("gallery", "state"),
    registry=REGISTRY,
)
CAMERA_SHIFT = Gauge(
    "resight_camera_drift_shift",
    "resight_drift_shift of one camera; only with metrics.camera_labels.",
    ("gallery", "camera"),
    registry=REGISTRY,
)
CAMERA_LOW_MATCH_SHARE = Gauge(
    "resight_camera_drift_low_match_share",
    "resight_drift_low_match_share of one camera; only with metrics.camera_labels.",
    ("gallery", "camera"),
    registry=REGISTRY,
)
DRIFT_CAMERAS_UNLABELLED = Gauge(
    "resight_drift_cameras_unlabelled",
    "Measured cameras without a series of their own, because there are more than "
    "metrics.max_camera_labels; only with metrics.camera_labels.",
    registry=REGISTRY,
)
