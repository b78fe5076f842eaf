"""Every Prometheus metric of the service, and the timer of its stages.

One process exposes one registry, so the metrics are module-level, as the Prometheus client means
them to be. Names start with ``resight_`` and use base units; no label ever holds an id of a crop,
track, camera or user. ``gallery`` is a label where a sum over galleries makes sense.
"""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import Literal, Self, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
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

Stage = Literal["decode", "queue", "embed", "filter", "search", "rerank", "db", "blob"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# A second series for every counter, which nothing of ours reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

# Doubling from 0.1 ms to 13 s: one decision of latency is never worth less than a factor of two.
_SECONDS = tuple(0.0001 * 2**step for step in range(18))
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_ROWS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)

REQUESTS = Counter(
    "resight_requests",
    "Requests answered; the code is the gRPC status name or the HTTP status.",
    ("protocol", "method", "code"),
    registry=REGISTRY,
)
REQUEST_DURATION = Histogram(
    "resight_request_duration_seconds",
    "Time from a request's arrival to the end of its answer.",
    ("protocol", "method"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
STAGE_DURATION = Histogram(
    "resight_stage_duration_seconds",
    "Time one item (decode, queue, filter, search, rerank, db, blob) or one batch (embed) spends "
    "in a stage of its way.",
    ("stage",),
    buckets=_SECONDS,
    registry=REGISTRY,
)
INFLIGHT = Gauge(
    "resight_inflight_requests",
    "Requests begun and not yet answered.",
    ("protocol",),
    registry=REGISTRY,
)
BATCH_SIZE = Histogram(
    "resight_batch_size",
    "Images in a batch given to the encoder.",
    buckets=_BATCHES,
    registry=REGISTRY,
)
BATCH_FAILURES = Counter(
    "resight_batch_failures",
    "Batches the encoder failed on; each is halved until the item at fault stands alone.",
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge(
    "resight_queue_depth",
    "Images waiting for the encoder; re-rankings under way or waiting for their thread (rerank).",
    ("queue",),
    registry=REGISTRY,
)
REJECTED = Counter(
    "resight_rejected",
    "Requests refused before any work was spent on them "
    "(queue_full, queue_bytes, rerank_queue_full, deadline, draining).",
    ("reason",),
    registry=REGISTRY,
)
ABANDONED = Counter(
    "resight_abandoned",
    "Items whose caller had left before their stage began.",
    ("stage",),
    registry=REGISTRY,
)
INGESTED = Counter(
    "resight_ingested",
    "Crops offered for ingest, by what became of them.",
    ("outcome",),
    registry=REGISTRY,
)
GALLERY_VECTORS = Gauge(
    "resight_gallery_vectors",
    "Vectors a search can return.",
    ("gallery", "model_version"),
    registry=REGISTRY,
)
GALLERY_UNREADY = Gauge(
    "resight_gallery_unready",
    "1 while a gallery refuses what it is asked, for a model that does not run in this process.",
    ("gallery", "refuses"),
    registry=REGISTRY,
)
INDEX_LAG = Gauge(
    "resight_index_lag_seconds",
    "Age of the oldest committed crop that is not yet searchable; 0 when there is none.",
    registry=REGISTRY,
)
INDEX_FILLED = Counter(
    "resight_index_filled",
    "Indexes filled at start: from their files (files), from the sound ones among them "
    "(files_in_part), or from the catalog, because there were none (catalog) or because they could "
    "not be used (damaged, newer_format, other_index, other_log).",
    ("source",),
    registry=REGISTRY,
)
INDEX_WRITES = Counter(
    "resight_index_writes",
    "Times an index was written to its files (written, failed, behind: it had not caught up with "
    "the catalog).",
    ("outcome",),
    registry=REGISTRY,
)
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
REPLICAS_LIVE = Gauge(
    "resight_replicas_live",
    "Processes that serve this catalog, this one included.",
    registry=REGISTRY,
)
REPLICA_LAG = Histogram(
    "resight_replica_lag_seconds",
    "Time from a change's entry in the log to its being searchable in this process, when the log "
    "had to be followed; the oldest change of each batch, by the database's clock.",
    buckets=_SECONDS,
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
SEARCH_ROWS_SCANNED = Histogram(
    "resight_search_rows_scanned",
    "Rows compared with one query.",
    buckets=_ROWS,
    registry=REGISTRY,
)
SEARCH_MODE = Counter(
    "resight_search_mode",
    "Searches by how the rows were compared.",
    ("mode",),
    registry=REGISTRY,
)
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
    buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    registry=REGISTRY,
)
MIRROR_SCORE = Histogram(
    "resight_mirror_best_score",
    "Score of the best match of a mirrored search, by role of the model (live, shadow, previous).",
    ("gallery", "role"),
    buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    registry=REGISTRY,
)
MIRROR_DURATION = Histogram(
    "resight_mirror_duration_seconds",
    "Time of a mirrored search from its turn to its matches, by role of the model (shadow, "
    "previous).",
    ("gallery", "role"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
PROVIDER_FALLBACK = Counter(
    "resight_provider_fallback",
    "Sessions that got another execution provider than the one asked for.",
    ("asked", "got"),
    registry=REGISTRY,
)
LOOP_LAG = Histogram(
    "resight_event_loop_lag_seconds",
    "How late the event loop runs a callback that is due.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
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
READY = Gauge(
    "resight_ready",
    "1 while the service answers requests, 0 while it starts or drains.",
    registry=REGISTRY,
)

_STAGES = {name: STAGE_DURATION.labels(name) for name in get_args(Stage)}


class stage:  # noqa: N801 -- reads as the statement it is: `with stage("decode"):`
    """Times one stage: ``with stage("decode"): ...``; the time counts when the stage fails too.

    It counts once for each of the ``items`` that go through together.
    """

    __slots__ = ("_begun", "_histogram", "_items")

    def __init__(self, name: Stage, *, items: int = 1) -> None:
        self._histogram = _STAGES[name]
        self._items = items
        self._begun = 0.0

    def __enter__(self) -> Self:
        self._begun = perf_counter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = perf_counter() - self._begun
        for _ in range(self._items):
            self._histogram.observe(seconds)


def exposition() -> bytes:
    """The registry in the Prometheus text format."""
    return generate_latest(REGISTRY)
