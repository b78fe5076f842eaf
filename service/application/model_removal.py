"""Vectors and archives of retired models taken away, in the background."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from sqlalchemy import Connection

from service.application.archives import Archives
from service.application.galleries import Galleries
from service.catalog import lifecycle, lifecycle_reads, model_vectors, registry
from service.catalog.store import Catalog

__all__ = ["ModelRemoval"]

logger = logging.getLogger(__name__)


class ModelRemoval:
    """Deletes what retired models leave behind; begun again after a crash.

    Args:
        catalog: Where vectors are.
        galleries: Whose indexes they are in.
        archives: Where bundles are.
        block: Vectors deleted in one transaction.
        keep_archives: Whether the bundles of retired models stay.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        archives: Archives,
        block: int,
        keep_archives: bool,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._archives = archives
        self._block = block
        self._keep_archives = keep_archives

    async def remove_all(self) -> None:
        """Delete everything that is left of retired models."""
        for record, sha256 in await self._catalog.read(lifecycle_reads.removals):
            await asyncio.to_thread(self._galleries.discard, record)
            gallery, model_row, removed = record.name, record.model_row, 0
            delete = partial(model_vectors.delete_vectors, model_row=model_row, limit=self._block)
            while count := await self._catalog.change(delete):
                removed += count
            if sha256 is not None and not self._keep_archives:
                await self._archives.remove(gallery, sha256)
            await self._catalog.change(partial(self._ended, model_row=model_row))
            logger.info("gallery %s: %d vectors of a retired model deleted", gallery, removed)

    def _ended(self, connection: Connection, model_row: int) -> None:
        if not self._keep_archives:
            registry.forget_archive(connection, model_row)
        lifecycle.ended_removal(connection, model_row)
