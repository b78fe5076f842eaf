"""Room on the disk of the data directory, and what the catalog is busy with, for the metrics."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from service.catalog.store import Catalog
from service.telemetry import (
    DATA_DIRECTORY_FREE,
    DATA_DIRECTORY_SIZE,
    DATABASE_CONNECTIONS,
    DATABASE_PENDING_WRITES,
)

__all__ = ["StorageWatch"]


class StorageWatch:
    """``look`` asks the file system, which may be slow; ``tell`` only what is known anyway.

    Args:
        data_dir: The data directory.
        catalog: The catalog.
    """

    def __init__(self, data_dir: Path, catalog: Catalog) -> None:
        self._data_dir = data_dir
        self._catalog = catalog

    async def look(self) -> None:
        """Ask the file system, on a thread.

        Raises:
            OSError: it does not answer.
        """
        found = await asyncio.to_thread(os.statvfs, self._data_dir)
        DATA_DIRECTORY_FREE.set(found.f_bavail * found.f_frsize)
        DATA_DIRECTORY_SIZE.set(found.f_blocks * found.f_frsize)

    def tell(self) -> None:
        """Tell the metrics of the catalog; at each scrape."""
        for pool, count in self._catalog.connections_in_use().items():
            DATABASE_CONNECTIONS.labels(pool).set(count)
        DATABASE_PENDING_WRITES.set(self._catalog.writer.pending)
