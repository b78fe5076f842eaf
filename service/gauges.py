"""Gauges of what the application holds, brought up to date when the metrics are asked for."""

from __future__ import annotations

from service.application.application import Application
from service.telemetry import (
    ADAPTATION_LEASE_HELD,
    GALLERY_BYTES,
    GALLERY_TOMBSTONES,
    GALLERY_UNREADY,
    GALLERY_VECTORS,
    INDEX_LAG,
)

__all__ = ["refresh_gauges"]


def refresh_gauges(application: Application) -> None:
    """Set them all."""
    gauges = application.gauges()
    # A model that answers no more must not go on with its last figure.
    GALLERY_VECTORS.clear()
    application.watching.storage.tell()
    for name, gauge in gauges.items():
        GALLERY_VECTORS.labels(name, gauge.model_version).set(gauge.vectors)
        GALLERY_TOMBSTONES.labels(name).set(gauge.tombstones)
        GALLERY_BYTES.labels(name, "memory").set(gauge.index_bytes)
        GALLERY_BYTES.labels(name, "memory_beside").set(gauge.beside_bytes)
        GALLERY_BYTES.labels(name, "device").set(gauge.device_bytes)
        GALLERY_UNREADY.labels(name, "searches").set(gauge.refuses_searches)
        GALLERY_UNREADY.labels(name, "crops").set(gauge.refuses_crops)
    application.erasing.backlog.show()
    application.retention.show()
    application.image_removal.show()
    INDEX_LAG.set(max((gauge.index_lag_seconds for gauge in gauges.values()), default=0.0))
    for name, lease in application.adaptation.gauges().items():
        ADAPTATION_LEASE_HELD.labels(name).set(lease.held)
