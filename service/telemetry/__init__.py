"""Every Prometheus metric of the service, and the timer of its stages.

One process exposes one registry, so the metrics are module-level, as the Prometheus client means
them to be. Names start with ``resight_`` and use base units; no label ever holds an id of a crop,
track, camera or user. ``gallery`` is a label where a sum over galleries makes sense.
"""

from __future__ import annotations

from service.telemetry.adaptation import (
    ADAPTATION_CROPS,
    ADAPTATION_LAST_SUCCESS,
    ADAPTATION_LEASE_HELD,
    ADAPTATION_RUNS,
    ADAPTATION_STREAMED,
)
from service.telemetry.galleries import (
    GALLERY_UNREADY,
    GALLERY_VECTORS,
    INDEX_FILLED,
    INDEX_LAG,
    INDEX_WRITES,
    INGESTED,
    SEARCH_MODE,
    SEARCH_ROWS_SCANNED,
)
from service.telemetry.governance import ERASURES_PENDING, ERASURES_REPLAYED, RETENTION_DROPPED
from service.telemetry.models import (
    MIRROR_DURATION,
    MIRROR_OVERLAP,
    MIRROR_SCORE,
    MIRRORED,
    MODEL_CHANGES,
    MODEL_FILLED,
    MODEL_INFO,
    MODEL_LOAD_DURATION,
    PROVIDER_FALLBACK,
)
from service.telemetry.registry import CONTENT_TYPE, REGISTRY, exposition
from service.telemetry.replicas import (
    REPLICA_FOLLOWS,
    REPLICA_HEARTBEATS,
    REPLICA_LAG,
    REPLICAS_LIVE,
)
from service.telemetry.requests import (
    ABANDONED,
    BATCH_FAILURES,
    BATCH_SIZE,
    INFLIGHT,
    LOOP_LAG,
    QUEUE_DEPTH,
    READY,
    REJECTED,
    REQUEST_DURATION,
    REQUESTS,
    STAGE_DURATION,
    Stage,
    stage,
)

__all__ = [
    "ABANDONED",
    "ADAPTATION_CROPS",
    "ADAPTATION_LAST_SUCCESS",
    "ADAPTATION_LEASE_HELD",
    "ADAPTATION_RUNS",
    "ADAPTATION_STREAMED",
    "BATCH_FAILURES",
    "BATCH_SIZE",
    "CONTENT_TYPE",
    "ERASURES_PENDING",
    "ERASURES_REPLAYED",
    "GALLERY_UNREADY",
    "GALLERY_VECTORS",
    "INDEX_FILLED",
    "INDEX_LAG",
    "INDEX_WRITES",
    "INFLIGHT",
    "INGESTED",
    "LOOP_LAG",
    "MIRRORED",
    "MIRROR_DURATION",
    "MIRROR_OVERLAP",
    "MIRROR_SCORE",
    "MODEL_CHANGES",
    "MODEL_FILLED",
    "MODEL_INFO",
    "MODEL_LOAD_DURATION",
    "PROVIDER_FALLBACK",
    "QUEUE_DEPTH",
    "READY",
    "REGISTRY",
    "REJECTED",
    "REPLICAS_LIVE",
    "REPLICA_FOLLOWS",
    "REPLICA_HEARTBEATS",
    "REPLICA_LAG",
    "REQUESTS",
    "REQUEST_DURATION",
    "RETENTION_DROPPED",
    "SEARCH_MODE",
    "SEARCH_ROWS_SCANNED",
    "STAGE_DURATION",
    "Stage",
    "exposition",
    "stage",
]
