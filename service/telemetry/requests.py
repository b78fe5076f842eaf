"""Requests, their stages and the queues before them."""

from __future__ import annotations

from time import perf_counter
from types import TracebackType
from typing import Literal, Self, get_args

from prometheus_client import Counter, Gauge, Histogram

from service.telemetry.exemplars import exemplar
from service.telemetry.registry import BATCHES, REGISTRY, SECONDS
from service.tracing.spans import Leaf, leaf
from service.tracing.tracer import Value

__all__ = [
    "ABANDONED",
    "BATCH_FAILURES",
    "BATCH_SIZE",
    "BATCH_WAIT",
    "INFLIGHT",
    "LOOP_LAG",
    "QUEUE_DEPTH",
    "READY",
    "REJECTED",
    "REQUESTS",
    "REQUEST_DURATION",
    "STAGE_DURATION",
    "Stage",
    "stage",
]

Stage = Literal["decode", "queue", "embed", "filter", "search", "rerank", "db", "blob"]

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
    buckets=SECONDS,
    registry=REGISTRY,
)
STAGE_DURATION = Histogram(
    "resight_stage_duration_seconds",
    "Time one item (decode, queue, filter, search, rerank, db, blob) or one batch (embed) spends "
    "in a stage of its way.",
    ("stage",),
    buckets=SECONDS,
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
    buckets=BATCHES,
    registry=REGISTRY,
)
BATCH_WAIT = Histogram(
    "resight_batch_wait_seconds",
    "Time that the image which waited longest for its batch had waited when the encoder got it.",
    buckets=SECONDS,
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
    "(queue_full, queue_bytes, rerank_queue_full, deadline, draining, rate_limit, quota).",
    ("reason",),
    registry=REGISTRY,
)
ABANDONED = Counter(
    "resight_abandoned",
    "Items whose caller had left before their stage began.",
    ("stage",),
    registry=REGISTRY,
)
LOOP_LAG = Histogram(
    "resight_event_loop_lag_seconds",
    "How late the event loop runs a callback that is due.",
    buckets=SECONDS,
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

    It counts once for each of the ``items`` that go through together. While tracing is on it is
    also a span of the call.
    """

    __slots__ = ("_begun", "_histogram", "_items", "_name", "_span")

    def __init__(self, name: Stage, *, items: int = 1) -> None:
        self._histogram = _STAGES[name]
        self._items = items
        self._name = name
        self._begun = 0.0

    def note(self, **attributes: Value) -> None:
        """Add attributes to the span: counts and modes, never what was asked for."""
        self._span.note(**attributes)

    def __enter__(self) -> Self:
        self._span: Leaf = leaf(self._name).__enter__()
        self._begun = perf_counter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = perf_counter() - self._begun
        self._span.__exit__(exc_type, exc, traceback)
        # One of those that go through together stands for all.
        self._histogram.observe(seconds, exemplar())
        for _ in range(self._items - 1):
            self._histogram.observe(seconds)
