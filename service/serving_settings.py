"""Settings of listeners, limits and what serves a query: sections of ``service.settings``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.backend_settings import Backend

__all__ = [
    "BatcherSettings",
    "BlobSettings",
    "CatalogSettings",
    "EncoderSettings",
    "GrpcSettings",
    "IndexSettings",
    "LimitSettings",
    "RestSettings",
    "SearchSettings",
    "TravelTimeSettings",
]

Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GrpcSettings(_Section):
    """The gRPC listener; port 0 takes a free one. Calls beyond ``max_concurrent_rpcs``, streams and
    health checks included, are refused at once; of one connection ``max_concurrent_streams`` run,
    and more wait at the client. A connection without a call is closed after
    ``max_connection_idle_seconds``. One that is ``max_connection_age_seconds`` old takes no more
    calls, and is closed when those it has have ended, or ``max_connection_age_grace_seconds``
    later where that is set, whatever streams it has.
    """

    host: str = "127.0.0.1"
    port: Port = 7443
    max_message_bytes: int = Field(default=24 * 1024 * 1024, ge=1024)
    max_concurrent_rpcs: int = Field(default=2048, ge=1)
    max_in_flight_per_stream: int = Field(default=64, ge=1)
    max_concurrent_streams: int = Field(default=1024, ge=1)
    max_connection_idle_seconds: float = Field(default=300.0, ge=0.1, le=86_400)
    max_connection_age_seconds: float = Field(default=3600.0, ge=0.1, le=2_000_000)
    max_connection_age_grace_seconds: float | None = Field(default=None, gt=0, le=2_000_000)


class RestSettings(_Section):
    """The REST listener; port 0 takes a free one. A request whose body keeps it waiting for
    ``max_body_seconds`` is refused, and its connection closed.
    """

    host: str = "127.0.0.1"
    port: Port = 7080
    max_body_seconds: float = Field(default=120.0, ge=0.1, le=86_400)


class LimitSettings(_Section):
    """Bounds on every input. Pages of one search reach ``max_ranked`` matches deep. A start is
    refused where the clock is more than ``max_clock_skew_seconds`` away from the database's, or
    behind what is stored.
    """

    max_image_bytes: int = Field(default=20 * 1024 * 1024, ge=1024)
    max_pixels: int = Field(default=50_000_000, ge=64)
    min_side: int = Field(default=8, ge=1)
    max_top_k: int = Field(default=1000, ge=1, le=10_000)
    max_ranked: int = Field(default=100_000, ge=10_000, le=1_000_000)
    max_examples: int = Field(default=32, ge=1, le=256)
    max_batch_queries: int = Field(default=64, ge=1, le=1024)
    max_rerank: int = Field(default=1000, ge=1, le=5000)
    max_waiting_reranks: int = Field(default=64, ge=1)
    max_travel_times: int = Field(default=10_000, ge=1, le=20_000)
    max_page_size: int = Field(default=1000, ge=1, le=10_000)
    max_filter_cameras: int = Field(default=1000, ge=1)
    max_filter_terms: int = Field(default=1000, ge=1, le=4000)
    max_galleries: int = Field(default=1000, ge=1)
    max_cameras: int = Field(default=100_000, ge=1)
    earliest_capture_time: datetime = datetime(1990, 1, 1, tzinfo=UTC)
    max_clock_ahead_seconds: float = Field(default=86_400.0, ge=0)
    max_clock_skew_seconds: float = Field(default=86_400.0, gt=0)

    @field_validator("earliest_capture_time")
    @classmethod
    def _aware(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("needs a UTC offset, for example 1990-01-01T00:00:00Z")
        return value.astimezone(UTC)


class BatcherSettings(_Section):
    """Dynamic batching in front of the encoder, and what may wait for it: ``max_queue`` images of
    ``max_queue_bytes`` together, as they came and decoded. While queries come, ingest fills a batch
    only as far as the encoder needs ``bulk_seconds`` for it.
    """

    max_batch: int = Field(default=16, ge=1, le=1024)
    max_queue: int = Field(default=256, ge=1)
    max_queue_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    bulk_seconds: float = Field(default=0.01, gt=0)


class EncoderSettings(_Section):
    """Where encoders run: ``provider``; one that cannot be used, or fails later, stops the process,
    or with ``fallback`` the CPU takes its place. Threads of the encoder and of decoding: 0 means
    all CPUs that affinity and cgroup quota allow, for the encoder less the one that decoding, RPC
    and search need while a batch runs.
    """

    provider: Literal["cpu", "cuda"] = "cpu"
    fallback: Literal["refuse", "cpu"] = "refuse"
    threads: int = Field(default=0, ge=0)
    decode_threads: int = Field(default=0, ge=0)


class SearchSettings(_Section):
    """Gallery search. Segments of an index are compared on ``threads`` threads side by side; 0
    means as many as the process may use, 1 leaves the other cores to the encoder. A filter that
    leaves at most ``gather_rows`` rows of a segment takes them one by one.
    """

    threads: int = Field(default=1, ge=0)
    gather_rows: int = Field(default=16_384, ge=0)


class TravelTimeSettings(_Section):
    """Travel times learned from a gallery's newest ``max_crops`` crops, of which the newest
    ``max_tracks`` tracks are compared. Tracks match when they are most like each other within
    ``horizon_seconds`` and show one person with ``min_probability``, or without a calibration when
    their score is above the ``score_quantile`` of all such pairs. A pair of cameras is known from
    ``min_matches`` on. A table older than ``refresh_seconds`` is learned again when it is used.
    """

    max_crops: int = Field(default=20_000, ge=100, le=200_000)
    max_tracks: int = Field(default=5_000, ge=100, le=50_000)
    horizon_seconds: float = Field(default=3600.0, gt=0, le=86_400)
    min_probability: float = Field(default=0.9, gt=0, lt=1)
    score_quantile: float = Field(default=0.5, ge=0, le=1)
    min_matches: int = Field(default=20, ge=2)
    refresh_seconds: float = Field(default=3600.0, ge=0)


class IndexSettings(_Section):
    """The indexes: in this process's memory (``segmented``), with a copy on a GPU (``gpu``), or in
    Milvus; in segments of ``segment_rows`` rows, and their files in the data directory,
    written after ``changes_per_write`` changes of a gallery, and at the end.
    """

    backend: Backend = "segmented"
    segment_rows: int = Field(default=65_536, ge=16, le=1_048_576)
    changes_per_write: int = Field(default=50_000, ge=1)


class CatalogSettings(_Section):
    """The catalog's threads, group commit and schema upgrades."""

    read_threads: int = Field(default=2, ge=1, le=64)
    max_group: int = Field(default=256, ge=1, le=4096)
    max_pending_writes: int = Field(default=4096, ge=1)
    auto_upgrade: bool = True


class BlobSettings(_Section):
    """The threads that write and read crop images."""

    threads: int = Field(default=4, ge=1, le=64)
