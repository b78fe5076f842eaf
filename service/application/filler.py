"""Fills shadows with vectors of the crops that were there before them, in the background."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import FailedPrecondition
from service.adaptation_settings import ModelSettings
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.reembedding import Reembedding
from service.application.serving import Serving
from service.catalog import fillings, lifecycle_reads
from service.catalog.fillings import Backlog, Filled, Lease
from service.catalog.store import Catalog
from service.domain.filling import FillingSource, FillingState
from service.domain.identifier import uuid7
from service.domain.ports import Clock
from service.telemetry import MODEL_FILLED

__all__ = ["Filler"]

logger = logging.getLogger(__name__)


class Filler:
    """Fills one shadow after the other; of several processes one fills at a time.

    A block of crops is read, embedded at bulk priority and stored in one transaction, which finds
    out under the gallery's lock which of them are still there: whatever happens in between, a crop
    has one vector of the model or none, and progress never runs ahead of what is stored.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        reembedding: Reembedding,
        clock: Clock,
        settings: ModelSettings,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._reembedding = reembedding
        self._clock = clock
        self._settings = settings
        self._holder: UUID = uuid7(clock.now())

    async def fill_all(self) -> None:
        """Fill every shadow as far as that goes now.

        Raises:
            Unavailable, OSError: not now; what was stored stays.
        """
        for gallery_row, model_row, source, state in await self._catalog.read(
            lifecycle_reads.fillings
        ):
            if state is not FillingState.RUNNING:
                continue
            for gallery in self._galleries.all():
                for serving in gallery.models.warm:
                    if (gallery.row, serving.record.model_row) == (gallery_row, model_row):
                        await self._fill(gallery, serving, source)

    async def _fill(self, gallery: Gallery, serving: Serving, source: FillingSource) -> None:
        model_row = serving.record.model_row
        if not await self._catalog.change(
            lambda connection: fillings.take_lease(connection, model_row, self._lease())
        ):
            return
        logger.info("gallery %s: filling model %s", gallery.name, serving.version)
        while True:
            began = time.monotonic()
            found = await self._catalog.read(
                fillings.backlog, gallery.row, model_row, limit=self._settings.fill_block
            )
            try:
                await self._store(gallery, serving, source, found)
            except FailedPrecondition as error:
                if error.reason != "FILLING_LOST":
                    raise
                logger.info("gallery %s: model %s: %s", gallery.name, serving.version, error)
                return
            if found.ends:
                logger.info("gallery %s: model %s is filled", gallery.name, serving.version)
                return
            worked = time.monotonic() - began
            await asyncio.sleep(worked * (1.0 / self._settings.fill_share - 1.0))

    async def _store(
        self, gallery: Gallery, serving: Serving, source: FillingSource, found: Backlog
    ) -> None:
        async with self._held(serving.record.model_row):
            made = await self._reembedding.made(
                serving, found.crops, source=source, live=gallery.record
            )

        def apply(connection: Connection) -> Filled:
            return fillings.store(
                connection,
                gallery.row,
                serving.record.model_row,
                found,
                made,
                lease=self._lease(),
            )

        def committed(stored: Filled) -> None:
            if stored.crop_ids:
                gallery.filled(serving.record.model_row, stored.crop_ids, stored.first)

        await self._catalog.change(apply, committed=committed)
        for item in made:
            outcome = "filled" if item.reason is None else item.reason.value.lower()
            MODEL_FILLED.labels(gallery.name, outcome).inc()

    @asynccontextmanager
    async def _held(self, model_row: int) -> AsyncIterator[None]:
        """Extend the lease for as long as a block takes: a slow encoder is no dead process."""

        async def extend() -> None:
            while True:
                await asyncio.sleep(self._settings.fill_lease_seconds / 3)
                await self._catalog.change(
                    lambda connection: fillings.take_lease(connection, model_row, self._lease())
                )

        extending = asyncio.create_task(extend())
        try:
            yield
        finally:
            extending.cancel()
            await asyncio.wait([extending])

    def _lease(self) -> Lease:
        length = timedelta(seconds=self._settings.fill_lease_seconds)
        return Lease(self._holder, self._clock.now(), length)
