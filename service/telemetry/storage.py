"""The disk of the data directory and the database of the catalog."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from service.telemetry.registry import REGISTRY

__all__ = [
    "CATALOG_COMMITS",
    "DATABASE_CONNECTIONS",
    "DATABASE_ERRORS",
    "DATABASE_PENDING_WRITES",
    "DATA_DIRECTORY_FREE",
    "DATA_DIRECTORY_SIZE",
]

DATA_DIRECTORY_FREE = Gauge(
    "resight_data_directory_free_bytes",
    "Bytes that this process may still write to the file system of data_dir.",
    registry=REGISTRY,
)
DATA_DIRECTORY_SIZE = Gauge(
    "resight_data_directory_size_bytes",
    "Size of the file system of data_dir.",
    registry=REGISTRY,
)
DATABASE_CONNECTIONS = Gauge(
    "resight_database_connections_in_use",
    "Connections to the catalog that are in use (read, write).",
    ("pool",),
    registry=REGISTRY,
)
DATABASE_ERRORS = Counter(
    "resight_database_errors",
    "Reads and changes of the catalog that the database failed.",
    registry=REGISTRY,
)
DATABASE_PENDING_WRITES = Gauge(
    "resight_database_pending_writes",
    "Changes that wait for the thread that writes to the catalog.",
    registry=REGISTRY,
)
CATALOG_COMMITS = Counter(
    "resight_database_commits",
    "Transactions that this process has committed; one commit takes every change that waits.",
    registry=REGISTRY,
)
