"""Ingest, indexes and searches."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from service.telemetry.registry import REGISTRY, ROWS

__all__ = [
    "GALLERY_BYTES",
    "GALLERY_TOMBSTONES",
    "GALLERY_UNREADY",
    "GALLERY_VECTORS",
    "INDEX_FILLED",
    "INDEX_LAG",
    "INDEX_WRITES",
    "INGESTED",
    "SEARCH_MODE",
    "SEARCH_ROWS_SCANNED",
    "STORED",
]

INGESTED = Counter(
    "resight_ingested",
    "Crops offered for ingest, by what became of them.",
    ("outcome",),
    registry=REGISTRY,
)
STORED = Counter(
    "resight_crops_stored",
    "Crops acknowledged as stored.",
    ("gallery",),
    registry=REGISTRY,
)
GALLERY_VECTORS = Gauge(
    "resight_gallery_vectors",
    "Vectors a search can return.",
    ("gallery", "model_version"),
    registry=REGISTRY,
)
GALLERY_TOMBSTONES = Gauge(
    "resight_gallery_tombstones",
    "Removed rows that still take room in the live model's index.",
    ("gallery",),
    registry=REGISTRY,
)
GALLERY_BYTES = Gauge(
    "resight_gallery_bytes",
    "Bytes of the live model's index (memory), of those fed beside it (memory_beside), and of all "
    "on a GPU (device), in this process.",
    ("gallery", "tier"),
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
SEARCH_ROWS_SCANNED = Histogram(
    "resight_search_rows_scanned",
    "Rows compared with one query.",
    buckets=ROWS,
    registry=REGISTRY,
)
SEARCH_MODE = Counter(
    "resight_search_mode",
    "Searches by how the rows were compared.",
    ("mode",),
    registry=REGISTRY,
)
