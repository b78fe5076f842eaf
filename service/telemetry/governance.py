"""Audit, retention and erasure."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from service.telemetry.registry import REGISTRY

__all__ = [
    "AUDIT_CHECKPOINT_AGE",
    "AUDIT_ENTRIES",
    "AUDIT_UNSIGNED_ENTRIES",
    "AUDIT_WRITABLE",
    "AUDIT_WRITE_FAILURES",
    "ERASURES",
    "ERASURES_PENDING",
    "ERASURES_REPLAYED",
    "ERASURE_CROPS_REMOVED",
    "ERASURE_OPEN",
    "ERASURE_OVERDUE",
    "IMAGE_REMOVAL_OVERDUE",
    "RETENTION_DROPPED",
    "RETENTION_OVERDUE",
]

AUDIT_ENTRIES = Counter(
    "resight_audit_entries",
    "Entries of the audit that this process has stored.",
    registry=REGISTRY,
)
AUDIT_WRITE_FAILURES = Counter(
    "resight_audit_write_failures",
    "Entries of the audit, checkpoints and anchors that could not be stored; a call whose entry "
    "could not be is answered UNAVAILABLE.",
    registry=REGISTRY,
)
AUDIT_WRITABLE = Gauge(
    "resight_audit_writable",
    "1 while the audit can be written, or is switched off; 0 after five seconds in which it could "
    "not be, until it has been for two: no call is answered, and the replica is not ready.",
    registry=REGISTRY,
)
AUDIT_WRITABLE.set(1)  # while a long start is watched, nothing has failed yet
AUDIT_UNSIGNED_ENTRIES = Gauge(
    "resight_audit_unsigned_entries",
    "Entries of this process's chain that no checkpoint covers yet.",
    registry=REGISTRY,
)
AUDIT_CHECKPOINT_AGE = Gauge(
    "resight_audit_checkpoint_age_seconds",
    "Age of the oldest entry of this process's chain that no checkpoint covers; 0 when there is "
    "none.",
    registry=REGISTRY,
)
ERASURES = Counter(
    "resight_erasures",
    "Steps of erasures: planned, cancelled, interrupted (and to be resumed), done.",
    ("outcome",),
    registry=REGISTRY,
)
for _outcome in ("planned", "cancelled", "interrupted", "done"):
    ERASURES.labels(_outcome)  # there at 0: a first value is no increase
ERASURE_CROPS_REMOVED = Counter(
    "resight_erasure_crops_removed",
    "Crops removed by confirmed erasures.",
    registry=REGISTRY,
)
ERASURE_OPEN = Gauge(
    "resight_erasure_open",
    "Erasures that are planned and await review, or running.",
    ("state",),
    registry=REGISTRY,
)
ERASURE_OVERDUE = Gauge(
    "resight_erasure_overdue_seconds",
    "For how long the oldest confirmed erasure has been unfinished; 0 when there is none.",
    registry=REGISTRY,
)
ERASURES_REPLAYED = Counter(
    "resight_erasures_replayed",
    "Erased crops that a restored catalog had brought back, erased again at start.",
    registry=REGISTRY,
)
ERASURES_PENDING = Counter(
    "resight_erasures_pending",
    "Erasures answered while a live replica had yet to apply them; the answer names it.",
    registry=REGISTRY,
)
RETENTION_DROPPED = Counter(
    "resight_retention_dropped",
    "Crops dropped because they were captured longer ago than they are kept.",
    ("gallery",),
    registry=REGISTRY,
)
RETENTION_OVERDUE = Gauge(
    "resight_retention_overdue_seconds",
    "For how long crops that had to be dropped have not been, counted from when the drop was due; "
    "0 when it succeeded last.",
    registry=REGISTRY,
)
IMAGE_REMOVAL_OVERDUE = Gauge(
    "resight_image_removal_overdue_seconds",
    "For how long the oldest image of a crop that was deleted, erased or dropped has waited to be "
    "removed from the blob store; 0 when none does.",
    registry=REGISTRY,
)
